//! Contexts that were given by name: directories, images, repositories, files.

use std::fs::File;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::error::Error;
use super::execute::Build;
use super::git_ref;
use super::remote::{ContextDir, NamedContext};
use super::sources::{Origin, Sources};
use crate::oci::Platform;
use crate::storage::Image;

impl Build<'_> {
    /// The image that a named context is; none for what is no image.
    pub(super) fn context_image(
        &mut self,
        context: &NamedContext,
        platform: &Platform,
    ) -> Result<Option<Image>, Error> {
        match context {
            NamedContext::Image(name) if name == "scratch" => Ok(None),
            NamedContext::Image(name) => self.image(name, platform).map(Some),
            NamedContext::Layout(place) => {
                let key = (format!("oci-layout://{place}"), platform.to_string());
                if let Some(image) = self.images.get(&key) {
                    return Ok(Some(image.clone()));
                }
                let work = self.board.begin(format!("[internal] load {}", key.0), false);
                let image = self.shop.remote.layout(place, platform, &work.parts());
                let image = image.map_err(|source| Error::Remote { place: key.0.clone(), source });
                work.end(&image);
                let image = image?;
                self.images.insert(key, image.clone());
                Ok(Some(image))
            }
            _ => Ok(None),
        }
    }

    /// The files of a named context.
    pub(super) fn context_origin(&mut self, name: &str, platform: &Platform) -> Result<Origin, Error> {
        let Some(context) = self.named_context(name) else {
            return Err(Error::Rule(format!("unknown context {name}")));
        };
        if let Some(image) = self.context_image(context, platform)? {
            return Ok(self.sources.layers(name, image.layers()));
        }
        match context {
            NamedContext::Directory(path) => {
                let ignore = Sources::own_ignore(path)?;
                self.sources.directory(&ContextDir::of_user(path), ignore.as_deref())
            }
            NamedContext::Image(_) | NamedContext::Layout(_) => {
                Ok(self.sources.layers("scratch", Vec::new()))
            }
            NamedContext::Git(_) | NamedContext::File(_) => {
                let key = super::graph::context_name(name).to_owned();
                let known = self.fetched.get(&key).cloned();
                let directory = match known {
                    Some(known) => known,
                    None => self.fetch_context(context)?,
                };
                self.fetched.insert(key, directory.clone());
                self.sources.directory(&directory, None)
            }
        }
    }

    fn fetch_context(&self, context: &NamedContext) -> Result<ContextDir, Error> {
        let (place, is_git) = match context {
            NamedContext::Git(git) => (git_ref::redacted(&git.remote), true),
            NamedContext::File(url) => (git_ref::redacted(url), false),
            _ => return Err(Error::Rule("a context is not fetched".into())),
        };
        let kind = if is_git { "git source " } else { "" };
        let work = self.board.begin(format!("[internal] load {kind}{place}"), false);
        let fetched = match context {
            NamedContext::Git(git) => {
                let remote = self.shop.remote;
                remote.commit(git).and_then(|commit| remote.checkout(git, &commit)).map(|checkout| {
                    ContextDir { path: checkout.path, owners: None, held: Some(checkout.held) }
                })
            }
            NamedContext::File(url) => self.file_context(url, &work),
            _ => Err("a context is not fetched".into()),
        };
        let fetched = fetched.map_err(|source| Error::Remote { place, source });
        work.end(&fetched);
        fetched
    }

    /// A directory with one file, `context`.
    fn file_context(
        &self,
        url: &str,
        work: &super::vertex::Work<'_>,
    ) -> Result<ContextDir, crate::image::BoxError> {
        let file = self.shop.remote.download(url, &|bytes, all| work.moved("context", bytes, all))?;
        let dir = self.shop.store.scratch_dir()?;
        let path = dir.path().to_owned();
        let mut out = File::create(path.join("context"))?;
        io::copy(&mut self.shop.store.open_blob(&file.digest)?, &mut out)?;
        out.set_permissions(std::fs::Permissions::from_mode(0o600))?;
        let modified = u64::try_from(file.modified.unwrap_or(0)).unwrap_or(0);
        out.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(modified))?;
        Ok(ContextDir { path, owners: None, held: Some(Arc::new(dir)) })
    }
}
