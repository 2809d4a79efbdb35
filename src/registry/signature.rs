//! Signatures of images at registries: what a policy demands is verified here, or refused by name.
//!
//! `sigstoreSigned` with keys is verified against the signatures that cosign and podman attach to an image
//! (`sha256-<hex>.sig` in the same repository). They are looked for whenever a policy demands one; the
//! `use-sigstore-attachments` of containers-registries.d(5) only matters to writers. `signedBy` is verified by the
//! host's `gpgv` (`simple_signing.rs`). Certificates of Fulcio, keys of Rekor and other authorities are refused.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer, alg_id};
use serde::Deserialize;
use ureq::http::Method;

use super::client::Client;
use super::endpoint::{About, ApiRequest, Endpoint};
use super::policy::{Identity, Policy, Requirement, Rules, Sigstore};
use super::settings::read_file;
use super::{Error, der, limits, simple_signing};
use crate::oci::{Digest, Manifest, Parsed, RawManifest, Reference, media_type};

/// The media type of the payloads that cosign attaches.
const PAYLOAD_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// The annotation of a payload that holds its signature.
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
/// How many signatures of one image are looked at.
const MOST: usize = 128;
/// The largest payload, in bytes: all of them lie in memory before any is verified.
const PAYLOAD_BYTES: u64 = 256 << 10;

/// What a signature says once it is verified: the document and the name it is for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub digest: String,
    pub name: String,
}

/// Whether the user's policy lets an image in, whose `documents` lead from what its name stands for to its manifest.
///
/// # Errors
/// [`Error::Policy`] when it does not, [`Error::Config`] when the policy or a key cannot be used, and what asking the
/// registry for signatures can give.
pub(super) fn admit(client: &Client<'_>, name: &Reference, documents: &[&RawManifest]) -> Result<(), Error> {
    let Some(policy) = Policy::load(&client.settings)? else { return Ok(()) };
    let rules = policy.for_registry(name);
    for requirement in rules.requirements {
        let refuse = |why: String| policy.refusal(name, &rules, why);
        match requirement {
            Requirement::InsecureAcceptAnything {} => {}
            Requirement::Reject {} => return Err(refuse("it says `reject`".into())),
            Requirement::SignedBaseLayer { .. } => {
                return Err(refuse("it demands `signedBaseLayer`, which nothing can verify".into()));
            }
            Requirement::SigstoreSigned(sigstore) => {
                if let Some(field) = sigstore.unsupported() {
                    return Err(refuse(format!(
                        "it demands `sigstoreSigned` with `{field}`, which strate does not verify: keys alone are"
                    )));
                }
                let keys = sigstore.keys(&policy.path)?;
                let identity = sigstore.signed_identity.as_ref();
                check(name, documents, identity, (&policy, &rules), |digest| {
                    Ok(attached(client, digest)?.into_iter().map(|found| found.verify(&keys)).collect())
                })?;
            }
            Requirement::SignedBy { key_type, key_path, key_paths, key_data, signed_identity } => {
                if key_type != "GPGKeys" {
                    return Err(refuse(format!(
                        "it demands `signedBy` with keys of type `{}`",
                        super::error::sanitise(key_type, 60)
                    )));
                }
                let paths = one_of(&policy.path, key_path.as_ref(), key_paths.as_ref(), key_data.as_ref())?;
                let keyring = simple_signing::Keyring::make(&policy.path, &paths, key_data.as_deref())?;
                check(name, documents, signed_identity.as_ref(), (&policy, &rules), |digest| {
                    simple_signing::signatures(client, &keyring, name, digest)
                })?;
            }
        }
    }
    Ok(())
}

/// Whether one of an image's documents has a good signature for its name. `signatures` gives those of a document,
/// verified, each a claim or what is wrong with it.
fn check(
    image: &Reference,
    documents: &[&RawManifest],
    identity: Option<&Identity>,
    (policy, rules): (&Policy, &Rules<'_>),
    signatures: impl Fn(&Digest) -> Result<Vec<Result<Claim, String>>, Error>,
) -> Result<(), Error> {
    let by_default = Identity::MatchRepoDigestOrExact {};
    let identity = identity.unwrap_or(&by_default);
    let mut faults: Vec<String> = Vec::new();
    for document in documents {
        for found in signatures(&document.digest)? {
            match found {
                Ok(claim) if claim.digest != document.digest.as_str() => {
                    faults.push(format!("a signature is for {}", super::error::sanitise(&claim.digest, 100)));
                }
                Ok(claim) if !identity.accepts(image, &claim.name) => {
                    faults.push(format!("a signature is for `{}`", super::error::sanitise(&claim.name, 200)));
                }
                Ok(_) => return Ok(()),
                Err(fault) => faults.push(fault),
            }
        }
    }
    faults.dedup();
    let why = if faults.is_empty() {
        "it demands a signature, and the image has none".to_owned()
    } else {
        faults.truncate(3);
        format!("no signature of the image is good: {}", faults.join("; "))
    };
    Err(policy.refusal(image, rules, why))
}

/// The key files of a requirement, which must name keys in exactly one way.
fn one_of<'a>(
    policy: &Path,
    path: Option<&'a std::path::PathBuf>,
    paths: Option<&'a Vec<std::path::PathBuf>>,
    data: Option<&String>,
) -> Result<Vec<&'a Path>, Error> {
    if usize::from(path.is_some()) + usize::from(paths.is_some()) + usize::from(data.is_some()) != 1 {
        return Err(Error::Config {
            path: policy.to_owned(),
            what: "a requirement must have exactly one of `keyPath`, `keyPaths` and `keyData`",
            source: None,
        });
    }
    Ok(path.into_iter().chain(paths.into_iter().flatten()).map(std::path::PathBuf::as_path).collect())
}

/// A public key that signatures may be made with.
struct Key {
    algorithm: &'static dyn SignatureVerificationAlgorithm,
    point: Vec<u8>,
}

impl Sigstore {
    /// A demand that is not verified here.
    fn unsupported(&self) -> Option<&'static str> {
        [
            ("fulcio", &self.fulcio),
            ("pki", &self.pki),
            ("rekorPublicKeyPath", &self.rekor_public_key_path),
            ("rekorPublicKeyPaths", &self.rekor_public_key_paths),
            ("rekorPublicKeyData", &self.rekor_public_key_data),
            ("rekorPublicKeyDatas", &self.rekor_public_key_datas),
        ]
        .into_iter()
        .find_map(|(name, value)| value.is_some().then_some(name))
    }

    fn keys(&self, policy: &Path) -> Result<Vec<Key>, Error> {
        let datas: Vec<&String> = self.key_data.iter().chain(self.key_datas.iter().flatten()).collect();
        if self.key_data.is_some() && self.key_datas.is_some() {
            return one_of(policy, None, None, None).map(|_| Vec::new());
        }
        let paths = one_of(policy, self.key_path.as_ref(), self.key_paths.as_ref(), datas.first().copied())?;
        let mut keys = Vec::new();
        for path in paths {
            let bad = |source| Error::Config {
                path: path.to_owned(),
                what: "it is no public key in PEM form",
                source,
            };
            let text = read_file(path)?
                .ok_or_else(|| bad(Some(std::io::Error::from(std::io::ErrorKind::NotFound).into())))?;
            keys.push(Key::read(text.as_bytes()).map_err(|what| bad(Some(what.into())))?);
        }
        for data in datas {
            let bad = |source| Error::Config {
                path: policy.to_owned(),
                what: "a `keyData` is not base64 of a public key in PEM form",
                source,
            };
            let pem = STANDARD.decode(data.trim()).map_err(|error| bad(Some(error.into())))?;
            keys.push(Key::read(&pem).map_err(|what| bad(Some(what.into())))?);
        }
        Ok(keys)
    }
}

impl Key {
    /// A key in PEM form: ECDSA, RSA or Ed25519. Signatures are over SHA-256, as cosign makes them.
    fn read(pem: &[u8]) -> Result<Self, &'static str> {
        let info =
            SubjectPublicKeyInfoDer::from_pem_slice(pem).map_err(|_| "there is no `PUBLIC KEY` in it")?;
        let (kind, point) = der::public_key(&info).ok_or("its content is damaged")?;
        let all = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.all;
        let over_sha256 = [alg_id::ECDSA_SHA256, alg_id::RSA_PKCS1_SHA256, alg_id::ED25519];
        let algorithm = all.iter().find(|algorithm| {
            algorithm.public_key_alg_id().as_ref() == kind
                && over_sha256.contains(&algorithm.signature_alg_id())
        });
        let algorithm = *algorithm.ok_or("keys of its kind are not supported: use ECDSA P-256")?;
        Ok(Self { algorithm, point: point.to_vec() })
    }
}

/// A signature that is attached to an image, as it came.
struct Attached {
    payload: Vec<u8>,
    signature: String,
}

impl Attached {
    /// What it claims, when one of the keys made it. Nothing of the payload is read before that is known.
    fn verify(&self, keys: &[Key]) -> Result<Claim, String> {
        let signature =
            STANDARD.decode(self.signature.trim()).map_err(|_| "a signature is not base64".to_owned())?;
        let good = |key: &Key| key.algorithm.verify_signature(&key.point, &self.payload, &signature).is_ok();
        if !keys.iter().any(good) {
            return Err("a signature is not by this key".into());
        }
        read_payload(&self.payload, "cosign container image signature")
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    critical: Critical,
    #[allow(dead_code, reason = "it may stand there and says nothing that is decided by")]
    #[serde(default)]
    optional: Option<serde_json::Map<String, serde_json::Value>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Critical {
    #[serde(rename = "type")]
    kind: String,
    image: SignedImage,
    identity: SignedIdentity,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct SignedImage {
    docker_manifest_digest: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct SignedIdentity {
    docker_reference: String,
}

/// Read a payload whose signature is verified (container-signature(5)), strictly.
pub(super) fn read_payload(bytes: &[u8], kind: &str) -> Result<Claim, String> {
    let payload: Payload = serde_json::from_slice(bytes)
        .map_err(|error| format!("a signature's payload cannot be read: {error}"))?;
    if payload.critical.kind != kind {
        return Err(format!("a signature is a `{}`", super::error::sanitise(&payload.critical.kind, 100)));
    }
    Ok(Claim {
        digest: payload.critical.image.docker_manifest_digest,
        name: payload.critical.identity.docker_reference,
    })
}

/// The signatures that are attached to a document in the image's repository.
fn attached(client: &Client<'_>, digest: &Digest) -> Result<Vec<Attached>, Error> {
    let tag = format!("{}-{}.sig", digest.algorithm(), digest.hex());
    let found = client.ask(|endpoint| {
        let path = endpoint.path(&format!("manifests/{tag}"));
        let accept = [media_type::OCI_MANIFEST, media_type::DOCKER_MANIFEST].join(", ");
        let request = ApiRequest::new(Method::GET, path.as_str()).header("accept", accept);
        let bytes = document(endpoint, request, &path, About::Manifest(&tag), limits::MANIFEST_BYTES)?;
        let raw = RawManifest::new(bytes, Some(media_type::OCI_MANIFEST))?;
        let Parsed::Manifest(manifest) = raw.parse()? else { return Ok(Vec::new()) };
        signatures_of(endpoint, &manifest)
    });
    match found {
        Err(Error::UnknownManifest { .. } | Error::UnknownRepository { .. }) => Ok(Vec::new()),
        found => found,
    }
}

fn signatures_of(endpoint: &Endpoint, manifest: &Manifest) -> Result<Vec<Attached>, Error> {
    let mut signatures = Vec::new();
    let payloads = manifest.layers().iter().filter(|layer| layer.media_type().to_string() == PAYLOAD_TYPE);
    for layer in payloads.take(MOST) {
        let Some(signature) = layer.annotations().as_ref().and_then(|all| all.get(SIGNATURE)) else {
            continue;
        };
        let digest: Digest = crate::oci::digest_of(layer).map_err(|error| Error::Manifest(error.into()))?;
        let path = endpoint.path(&format!("blobs/{digest}"));
        let request = ApiRequest::new(Method::GET, path.as_str());
        let payload = document(endpoint, request, &path, About::Blob(&digest), PAYLOAD_BYTES)?;
        let mut hasher = digest.hasher();
        hasher.update(&payload);
        let found = hasher.finish();
        if found != digest {
            return Err(Error::Corrupt {
                registry: endpoint.registry.clone(),
                what: "a signature".into(),
                expected: digest.to_string(),
                found: found.to_string(),
            });
        }
        signatures.push(Attached { payload, signature: signature.clone() });
    }
    Ok(signatures)
}

/// A small document.
fn document(
    endpoint: &Endpoint,
    request: ApiRequest<'_>,
    path: &str,
    about: About<'_>,
    limit: u64,
) -> Result<Vec<u8>, Error> {
    let response = endpoint.send(request)?;
    if response.status != 200 {
        return Err(endpoint.error(response, &Method::GET, path, about));
    }
    response.document(limit)?.ok_or_else(|| Error::Corrupt {
        registry: endpoint.registry.clone(),
        what: "a signature".into(),
        expected: format!("at most {} KiB", limit >> 10),
        found: "more".into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_read_strictly() {
        let kind = "cosign container image signature";
        let payload = |critical: &str, rest: &str| format!("{{\"critical\": {{{critical}}}{rest}}}");
        let good = format!(
            "\"type\": \"{kind}\", \"image\": {{\"docker-manifest-digest\": \"sha256:1\"}}, \"identity\": {{\"docker-reference\": \"a\"}}"
        );
        let read = |text: &str| read_payload(text.as_bytes(), kind);
        let claim = Claim { digest: "sha256:1".into(), name: "a".into() };
        assert_eq!(read(&payload(&good, ", \"optional\": null")), Ok(claim));
        assert!(read(&payload(&good, ", \"optional\": {\"creator\": \"x\"}")).is_ok());
        for (critical, rest) in [
            (format!("{good}, \"more\": 1"), ""),
            (good.replace("cosign", "other"), ""),
            (good.replace("\"docker-reference\": \"a\"", ""), ""),
            (format!("{good}, \"type\": \"{kind}\""), ""),
            (good.clone(), ", \"more\": 1"),
        ] {
            assert!(read(&payload(&critical, rest)).is_err(), "{critical} {rest}");
        }
    }
}
