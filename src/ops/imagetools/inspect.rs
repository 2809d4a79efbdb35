//! `imagetools inspect`: what a name in a registry stands for.

use super::Error;
use crate::context::Context;
use crate::image::{BoxError, IndexDraft, Member, Reporter, Source};
use crate::oci::{Parsed, Platform, RawManifest, Reference};
use crate::ops::manifest::Finder;
use crate::ops::remote::{self, RemoteOptions};
use crate::registry::{Action, Client};

/// What was found.
#[derive(Debug, Clone)]
pub struct Inspected {
    /// The name.
    pub name: Reference,
    /// The document.
    pub raw: RawManifest,
    /// What it names, when it is an index.
    pub members: Vec<Member>,
    /// The config of each image by its platform, when they were asked for.
    pub configs: Vec<(String, serde_json::Value)>,
}

/// Look at an image in a registry; with its configs only when they are wanted.
///
/// # Errors
/// When it cannot be read.
pub fn inspect(
    cx: &Context,
    name: &str,
    configs: bool,
    options: &RemoteOptions,
    report: &dyn Reporter,
) -> Result<Inspected, Error> {
    let name = &remote::told_name(cx, name, report)?;
    let failed = |source: BoxError| Error::Read { part: name.to_string(), source };
    let client = Client::new(&options.settings(cx), name, Action::Pull, report)?;
    let target = client.resolve(name).map_err(failed)?;
    let raw = client.manifest(&target).map_err(failed)?;
    let members = match IndexDraft::parse(&raw) {
        Ok(index) => index.members().to_vec(),
        Err(crate::image::DraftError::NotAnIndex(_)) => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    let mut found = Inspected { name: name.clone(), raw, members, configs: Vec::new() };
    if configs {
        found.configs = found.read_configs(&client).map_err(failed)?;
    }
    Ok(found)
}

impl Inspected {
    fn read_configs(&self, client: &Client<'_>) -> Result<Vec<(String, serde_json::Value)>, BoxError> {
        let mut raws = Vec::new();
        for member in self.members.iter().filter(|member| member.runs()) {
            raws.push(client.manifest(&member.descriptor())?);
        }
        if self.members.is_empty() {
            raws.push(self.raw.clone());
        }
        let mut configs = Vec::new();
        for raw in raws {
            let Parsed::Manifest(manifest) = raw.parse()? else { continue };
            let config = Finder::config(client, &manifest)?;
            let text = |key: &str| config[key].as_str().map(str::to_owned);
            let platform = Platform::new(
                &text("os").unwrap_or_default(),
                &text("architecture").unwrap_or_default(),
                text("variant").as_deref(),
            );
            configs.push((platform.to_string(), config));
        }
        Ok(configs)
    }
}
