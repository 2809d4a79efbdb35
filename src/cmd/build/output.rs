//! `--output`, `--push`, `--load` and `--annotation`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::cmd::CmdError;
use crate::oci::Reference;
use crate::ops::build::{Format, Layers, NewCompression, Output, Times};

/// What the flags about outputs come to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Outputs {
    /// Where results go; empty for the store.
    pub outputs: Vec<Output>,
    /// Annotations of manifests.
    pub annotations: BTreeMap<String, String>,
    /// Annotations of the index.
    pub index_annotations: BTreeMap<String, String>,
}

impl Outputs {
    /// Read the flags.
    pub(super) fn parse(
        specs: &[String],
        push: bool,
        load: bool,
        annotations: &[String],
    ) -> Result<Self, CmdError> {
        let mut all = Self::default();
        for spec in specs {
            let output = all.output(spec)?;
            all.outputs.push(output);
        }
        for text in annotations {
            all.annotation(text)?;
        }
        if all.outputs.iter().filter(|output| output.takes_stdout()).count() > 1 {
            return Err(CmdError::usage("only one --output may go to standard output"));
        }
        if push {
            all.push()?;
        }
        if load && !all.outputs.iter().any(|output| matches!(output, Output::Image { .. })) {
            all.outputs.push(Output::image());
        }
        Ok(all)
    }

    /// What flags of their own say of layers, for outputs that do not say it themselves.
    pub(super) fn layers(&mut self, layers: &Layers) {
        if *layers == Layers::default() {
            return;
        }
        if self.outputs.is_empty() {
            self.outputs.push(Output::image());
        }
        for output in &mut self.outputs {
            let (Output::Image { layers: own, .. } | Output::Archive { layers: own, .. }) = output else {
                continue;
            };
            own.compression = own.compression.or(layers.compression);
            if own.times == Times::Kept {
                own.times = layers.times;
            }
        }
    }

    /// Whether the store gets the image.
    pub(super) fn to_store(&self) -> bool {
        self.outputs.is_empty() || self.outputs.iter().any(|output| matches!(output, Output::Image { .. }))
    }

    fn push(&mut self) -> Result<(), CmdError> {
        if self.outputs.is_empty() {
            self.outputs.push(Output::image());
        }
        let mut pushed = false;
        for output in &mut self.outputs {
            if let Output::Image { push, .. } = output {
                (*push, pushed) = (true, true);
            }
        }
        if pushed {
            return Ok(());
        }
        Err(CmdError::usage("--push needs an image, and --output asks for something else")
            .with_hint("add --output type=registry"))
    }

    /// One `--output`.
    fn output(&mut self, spec: &str) -> Result<Output, CmdError> {
        let wrong = |what: String| CmdError::usage(format!("invalid output `{spec}`: {what}"));
        let fields = fields(spec).ok_or_else(|| wrong("a quote is not closed".into()))?;
        if let [path] = fields.as_slice()
            && !path.contains('=')
        {
            return Ok(match path.as_str() {
                "-" => Output::Tar { dest: "-".into(), split: None },
                path => Output::Local { dest: path.into(), split: None, delete: false },
            });
        }
        let mut options = Options::default();
        for field in &fields {
            let (key, value) =
                field.split_once('=').ok_or_else(|| wrong(format!("`{field}` is not key=value")))?;
            let key = key.trim().to_ascii_lowercase();
            if !self.annotation_option(&key, field, value)? {
                options.take(&key, value).map_err(wrong)?;
            }
        }
        options.finish().map_err(wrong)
    }

    /// `annotation.KEY`, `annotation-manifest.KEY`, `annotation-index.KEY`; keys keep their case.
    fn annotation_option(&mut self, key: &str, field: &str, value: &str) -> Result<bool, CmdError> {
        let Some(level) = key.split_once('.').map(|(level, _)| level) else { return Ok(false) };
        let name = field.split_once('=').map_or("", |(key, _)| key).trim();
        let name = name.split_once('.').map_or("", |(_, name)| name).to_owned();
        let map = match level {
            "annotation" | "annotation-manifest" => &mut self.annotations,
            "annotation-index" => &mut self.index_annotations,
            level if level.starts_with("annotation") => {
                return Err(CmdError::usage(format!("`{level}` annotations are not supported")));
            }
            _ => return Ok(false),
        };
        map.insert(name, value.to_owned());
        Ok(true)
    }

    /// One `--annotation`: `[LEVEL,…:]KEY=VALUE`.
    fn annotation(&mut self, text: &str) -> Result<(), CmdError> {
        let wrong = |what: &str| CmdError::usage(format!("invalid annotation `{text}`: {what}"));
        let (key, value) = text.split_once('=').ok_or_else(|| wrong("it is [level:]key=value"))?;
        let (levels, key) = match key.split_once(':') {
            Some((levels, key)) => (levels.split(',').collect(), key),
            None => (vec!["manifest"], key),
        };
        if key.is_empty() {
            return Err(wrong("it has no key"));
        }
        for level in levels {
            let map = match level {
                "manifest" => &mut self.annotations,
                "index" => &mut self.index_annotations,
                "manifest-descriptor" | "index-descriptor" => {
                    return Err(wrong("annotations of descriptors are not supported"));
                }
                _ => return Err(wrong("its level is manifest or index")),
            };
            map.insert(key.to_owned(), value.to_owned());
        }
        Ok(())
    }
}

/// The fields of one `--output`.
#[derive(Debug, Default)]
struct Options {
    kind: Option<String>,
    dest: Option<String>,
    names: Vec<Reference>,
    push: bool,
    unpack: bool,
    split: Option<bool>,
    delete: bool,
    plain_dir: bool,
    compression: Option<String>,
    level: Option<String>,
    layers: Layers,
}

impl Options {
    fn take(&mut self, key: &str, value: &str) -> Result<(), String> {
        let flag = || boolean(value).ok_or_else(|| format!("`{key}` is true or false"));
        match key {
            "type" => self.kind = Some(value.to_ascii_lowercase()),
            "dest" => self.dest = Some(value.to_owned()),
            "name" => {
                for name in value.split(',').map(str::trim).filter(|name| !name.is_empty()) {
                    let parsed = Reference::parse(name).map_err(|error| format!("`{name}`: {error}"))?;
                    self.names.push(parsed);
                }
            }
            "push" => self.push = flag()?,
            "unpack" => self.unpack = flag()?,
            "platform-split" => self.split = Some(flag()?),
            "mode" => match value {
                "copy" => self.delete = false,
                "delete" => self.delete = true,
                _ => return Err(format!("unknown mode `{value}`: it is copy or delete")),
            },
            "tar" => self.plain_dir = !flag()?,
            "compression" => self.compression = Some(value.to_ascii_lowercase()),
            "compression-level" => self.level = Some(value.to_owned()),
            "force-compression" => self.layers.force = flag()?,
            "rewrite-timestamp" => self.layers.times = if flag()? { Times::Clamped } else { Times::Kept },
            "oci-mediatypes" => self.layers.docker_types = !flag()?,
            // What they ask for is so, or cannot be told from outside.
            "store"
            | "name-canonical"
            | "oci-artifact"
            | "attestation-inline"
            | "buildinfo"
            | "prefer-nondist-layers"
            | "registry.insecure" => {
                flag()?;
            }
            "push-by-digest" => {
                if flag()? {
                    return Err("push-by-digest is not supported".into());
                }
            }
            _ => return Err(format!("unknown option `{key}`")),
        }
        Ok(())
    }

    fn compression(&self) -> Result<Option<NewCompression>, String> {
        let level = |most: u32| match self.level.as_deref() {
            None => Ok(None),
            Some(text) => match text.parse::<u32>() {
                Ok(level) if level <= most => Ok(Some(level)),
                _ => Err(format!("compression-level is a number from 0 to {most}")),
            },
        };
        Ok(match self.compression.as_deref() {
            None if self.level.is_some() => Some(NewCompression::Gzip(level(9)?)),
            None => None,
            Some("gzip") => Some(NewCompression::Gzip(level(9)?)),
            Some("zstd") => Some(NewCompression::Zstd(level(22)?.map(u32::cast_signed))),
            Some("uncompressed") => Some(NewCompression::None),
            Some("estargz") => return Err("compression estargz is not supported".into()),
            Some(other) => return Err(format!("unsupported compression type {other}")),
        })
    }

    fn finish(mut self) -> Result<Output, String> {
        self.layers.compression = self.compression()?;
        if self.layers.docker_types && matches!(self.layers.compression, Some(NewCompression::Zstd(_))) {
            return Err("docker's media types have none for zstd".into());
        }
        if self.layers.times != Times::Kept && self.unpack {
            return Err("rewrite-timestamp and unpack exclude each other".into());
        }
        let kind = self.kind.take().ok_or("type is required for output")?;
        let needs_directory = || format!("dest is required for {kind} exporter");
        let archive_dest = self.dest.clone().map_or_else(|| PathBuf::from("-"), PathBuf::from);
        let Self { dest, names, push, split, delete, plain_dir, layers, .. } = self;
        Ok(match (kind.as_str(), dest) {
            ("local", Some(dest)) => Output::Local { dest: dest.into(), split, delete },
            ("tar", _) => Output::Tar { dest: archive_dest, split },
            ("oci", Some(dest)) if plain_dir => {
                Output::Archive { format: Format::OciDir, dest: dest.into(), names, layers }
            }
            ("local", None) | ("oci", None) if plain_dir || kind == "local" => return Err(needs_directory()),
            ("oci", _) => Output::Archive { format: Format::OciArchive, dest: archive_dest, names, layers },
            ("docker", Some(_)) if plain_dir => return Err("tar=false is not supported for docker".into()),
            ("docker", Some(_)) => {
                Output::Archive { format: Format::DockerArchive, dest: archive_dest, names, layers }
            }
            ("image" | "docker", _) => Output::Image { names, push, layers },
            ("registry", _) => Output::Image { names, push: true, layers },
            ("cacheonly", _) => Output::Nothing,
            _ => return Err(format!("unknown type `{kind}`")),
        })
    }
}

fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "t" | "true" => Some(true),
        "0" | "f" | "false" => Some(false),
        _ => None,
    }
}

/// The fields of a line of CSV: quotes around a whole field keep commas in it, doubled quotes stand for one. `None` when
/// a quote is not closed.
pub(super) fn fields(text: &str) -> Option<Vec<String>> {
    let mut all = vec![String::new()];
    let mut chars = text.chars().peekable();
    let mut quoted = false;
    while let Some(c) = chars.next() {
        let field = all.last_mut()?;
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' if quoted => quoted = false,
            '"' if field.is_empty() => quoted = true,
            ',' if !quoted => all.push(String::new()),
            c => field.push(c),
        }
    }
    (!quoted).then_some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(spec: &str) -> Result<Output, String> {
        let all = Outputs::parse(&[spec.to_owned()], false, false, &[]);
        all.map(|mut all| all.outputs.remove(0)).map_err(|error| format!("{error:?}"))
    }

    #[test]
    fn outputs() {
        let local = |dest: &str| Output::Local { dest: dest.into(), split: None, delete: false };
        let archive = |format, dest: &str, layers| Output::Archive {
            format,
            dest: dest.into(),
            names: Vec::new(),
            layers,
        };
        let none = Layers::default();
        for (spec, output) in [
            ("out", local("out")),
            ("-", Output::Tar { dest: "-".into(), split: None }),
            ("type=local,dest=a/b", local("a/b")),
            ("type=tar", Output::Tar { dest: "-".into(), split: None }),
            ("type=oci,dest=x.tar", archive(Format::OciArchive, "x.tar", none)),
            ("type=oci,tar=false,dest=x", archive(Format::OciDir, "x", none)),
            ("type=docker,dest=-", archive(Format::DockerArchive, "-", none)),
            ("type=docker", Output::image()),
            ("type=cacheonly", Output::Nothing),
            (
                "type=oci,dest=x,compression=zstd,compression-level=5,force-compression=true",
                archive(
                    Format::OciArchive,
                    "x",
                    Layers { compression: Some(NewCompression::Zstd(Some(5))), force: true, ..none },
                ),
            ),
        ] {
            assert_eq!(parse(spec).unwrap(), output, "{spec}");
        }
        let Output::Image { names, push, .. } = parse("type=image,\"name=a,b:1\",push=true").unwrap() else {
            panic!()
        };
        assert!(push && names.len() == 2);
    }

    #[test]
    fn outputs_that_cannot_be() {
        for spec in [
            "type=local",
            "dest=x",
            "type=oci,tar=false",
            "type=what",
            "type=oci,compression=lzma",
            "type=oci,compression=zstd,oci-mediatypes=false",
            "type=oci,compression-level=10",
            "type=image,\"name=a",
            "type=image,unknown=1",
            "type=image,push-by-digest=true",
            "type=image,rewrite-timestamp=true,unpack=true",
        ] {
            assert!(parse(spec).is_err(), "{spec}");
        }
        let two = ["-".to_owned(), "type=oci".to_owned()];
        assert!(Outputs::parse(&two, false, false, &[]).is_err());
        assert!(Outputs::parse(&["out".to_owned()], true, false, &[]).is_err());
    }

    #[test]
    fn push_load_and_annotations() {
        let all = Outputs::parse(&[], true, true, &["a=b".into(), "manifest,index:c=d=e".into()]).unwrap();
        assert_eq!(all.outputs, [Output::Image { names: Vec::new(), push: true, layers: Layers::default() }]);
        assert_eq!((all.annotations.len(), all.index_annotations["c"].as_str()), (2, "d=e"));
        let all = Outputs::parse(&["out".into()], false, true, &[]).unwrap();
        assert_eq!(all.outputs.len(), 2);
        assert!(Outputs::parse(&[], false, false, &["index-descriptor:a=b".into()]).is_err());
        let all = Outputs::parse(&["type=oci,annotation.Key.x=v".into()], false, false, &[]).unwrap();
        assert_eq!(all.annotations["Key.x"], "v");
    }
}
