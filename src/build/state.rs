//! A stage as far as it has come: config, layers and history.

use std::sync::Arc;

use crate::image::{Edit, NewLayer};
use crate::oci::{Descriptor, DiffId, History, ImageConfig, Platform, chain_ids};
use crate::storage::Image;

use super::history::COMMENT;
use super::metadata;
use super::scope::{Globals, Scope};

/// A stage as far as it has come.
#[derive(Debug, Clone)]
pub(super) struct StageState {
    /// Metadata so far; layers and history in it are the base's.
    pub config: ImageConfig,
    /// The base's layers.
    pub base_layers: Vec<Descriptor>,
    /// Layers of this build, those of stages below included.
    pub new_layers: Vec<NewLayer>,
    /// History entries of this build.
    pub history: Vec<History>,
    /// Variables.
    pub scope: Scope,
    /// What the stage is for.
    pub platform: Platform,
}

impl StageState {
    /// On nothing.
    pub(super) fn scratch(platform: &Platform, globals: &Arc<Globals>, escape: char) -> Self {
        let config = metadata::scratch_config(platform);
        let scope = Scope::new(Arc::clone(globals), escape, &config.config);
        Self::new(config, Vec::new(), scope, platform)
    }

    /// On an image. Its ONBUILD triggers are in the stage graph by now. A platform that was asked for by name is what the
    /// result claims to be for, even when the image is for another; else the image's own counts.
    pub(super) fn on_image(
        image: Image,
        asked: Option<&Platform>,
        globals: &Arc<Globals>,
        escape: char,
    ) -> Self {
        let (mut config, _) = metadata::inherit(image.config);
        let platform = asked.cloned().unwrap_or_else(|| config.platform());
        config.os.clone_from(&platform.os);
        config.architecture.clone_from(&platform.architecture);
        config.variant.clone_from(&platform.variant);
        let scope = Scope::new(Arc::clone(globals), escape, &config.config);
        Self::new(config, image.manifest.layers().clone(), scope, &platform)
    }

    fn new(config: ImageConfig, base_layers: Vec<Descriptor>, scope: Scope, platform: &Platform) -> Self {
        let (new_layers, history) = (Vec::new(), Vec::new());
        Self { config, base_layers, new_layers, history, scope, platform: platform.clone() }
    }

    /// On another stage.
    pub(super) fn on_stage(parent: &Self) -> Self {
        let mut child = Self { scope: parent.scope.child(), ..parent.clone() };
        child.config.config.on_build.clear();
        child
    }

    /// All layers, lowest first.
    pub(super) fn layers(&self) -> Vec<(Descriptor, DiffId)> {
        let base = self.base_layers.iter().cloned().zip(self.config.rootfs.diff_ids.iter().cloned());
        let new = self.new_layers.iter().map(|layer| (layer.descriptor.clone(), layer.diff_id.clone()));
        base.chain(new).collect()
    }

    /// A name for the files as they are now: the chain id, or `scratch`.
    pub(super) fn chain(&self) -> String {
        chain(&self.layers())
    }

    /// Note a step that made a layer.
    pub(super) fn push_layer(&mut self, layer: NewLayer, created_by: String, created: &str) {
        self.new_layers.push(layer);
        self.history.push(entry(created_by, false, Some(created.to_owned())));
    }

    /// Note a step that changed only metadata.
    pub(super) fn push_empty(&mut self, created_by: String) {
        self.history.push(entry(created_by, true, None));
    }

    /// The directory that relative paths start from.
    pub(super) fn workdir(&self) -> &str {
        match self.config.config.working_dir.as_str() {
            "" => "/",
            dir => dir,
        }
    }

    /// The image, times filled in. No new time is later than `epoch`.
    pub(super) fn into_edit(mut self, epoch: Option<i64>) -> Edit {
        let old = self.config.history.len();
        let mut all = std::mem::take(&mut self.config.history);
        all.append(&mut self.history);
        fill_times(&mut all);
        let mut history = all.split_off(old);
        if let Some(limit) = epoch.and_then(|epoch| jiff::Timestamp::from_second(epoch).ok()) {
            for entry in &mut history {
                let time = entry.created.as_deref().and_then(|text| text.parse::<jiff::Timestamp>().ok());
                if time.is_some_and(|time| time > limit) {
                    entry.created = Some(limit.to_string());
                }
            }
        }
        self.config.history = all;
        let Self { config, base_layers, new_layers, .. } = self;
        let annotations = std::collections::BTreeMap::new();
        Edit { config, base_layers, new_layers, history, docker_types: false, annotations }
    }
}

/// A name for a list of layers.
pub(super) fn chain(layers: &[(Descriptor, DiffId)]) -> String {
    let diff_ids: Vec<DiffId> = layers.iter().map(|(_, diff_id)| diff_id.clone()).collect();
    chain_ids(&diff_ids).last().map_or_else(|| "scratch".to_owned(), ToString::to_string)
}

fn entry(created_by: String, empty_layer: bool, created: Option<String>) -> History {
    History {
        author: None,
        comment: Some(COMMENT.into()),
        created,
        created_by: Some(created_by),
        empty_layer,
    }
}

/// Entries without a time take that of the first new layer, later ones that of the layer before them.
fn fill_times(history: &mut [History]) {
    let first_gap = history.iter().position(|entry| entry.created.is_none()).unwrap_or(history.len());
    let after_gap = history[first_gap..].iter().find_map(|entry| entry.created.clone());
    let mut time = after_gap.or_else(|| history[..first_gap].iter().rev().find_map(|e| e.created.clone()));
    let mut gap = false;
    for entry in history {
        match &entry.created {
            Some(own) if gap => time = Some(own.clone()),
            Some(_) => {}
            None => {
                gap = true;
                entry.created.clone_from(&time);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_steps_borrow_their_time() {
        let run = |times: &[Option<&str>]| {
            let mut history: Vec<History> =
                times.iter().map(|time| entry(String::new(), false, time.map(str::to_owned))).collect();
            fill_times(&mut history);
            history.into_iter().map(|entry| entry.created.unwrap_or_default()).collect::<Vec<_>>()
        };
        assert_eq!(run(&[Some("a"), None, Some("b"), None]), ["a", "b", "b", "b"]);
        assert_eq!(run(&[Some("a"), None, None]), ["a", "a", "a"]);
        assert_eq!(run(&[None, Some("a"), None, Some("b"), None]), ["a", "a", "a", "b", "b"]);
        assert_eq!(run(&[None]), [""]);
    }
}
