//! Chain ids: a layer together with everything below it (OCI image-spec, config.md "Layer ChainID").

use super::{DiffId, Digest, digest::id_type};

id_type! {
    /// The digest that names a layer on top of all layers below it.
    ChainId
}

/// The chain id of every layer, lowest first.
#[must_use]
pub fn chain_ids(diff_ids: &[DiffId]) -> Vec<ChainId> {
    let mut chain: Vec<ChainId> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let next = match chain.last() {
            None => ChainId(diff_id.0.clone()),
            Some(below) => ChainId(Digest::sha256(format!("{below} {diff_id}"))),
        };
        chain.push(next);
    }
    chain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_the_diff_id_and_the_rest_hash_what_is_below() {
        let a = DiffId(Digest::sha256("a"));
        let b = DiffId(Digest::sha256("b"));
        let chain = chain_ids(&[a.clone(), b.clone()]);
        assert_eq!(chain[0].digest(), a.digest());
        assert_eq!(chain[1].digest(), &Digest::sha256(format!("{a} {b}")));
    }
}
