//! The options of docker's `local` driver: what stands behind a volume.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// What a container sees where a volume is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backing {
    /// A directory of the store.
    Data {
        /// `volumes/<name>/_data`
        path: PathBuf,
        /// Who it was given to when it was made: ids of the container.
        owner: Option<(u32, u32)>,
    },
    /// A directory of the host.
    Bind {
        /// Absolute.
        path: PathBuf,
        /// With what is mounted below it.
        recursive: bool,
        /// Nobody writes to it.
        read_only: bool,
        /// No programs are started from it.
        no_exec: bool,
    },
    /// Memory, anew for each container.
    Tmpfs {
        /// As `mount -o` takes them.
        options: String,
    },
}

/// An option that this driver has not, or that cannot work here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("option `{option}`: {why}")]
pub struct BadOption {
    /// The option as given.
    pub option: String,
    /// Why not, or what to do instead.
    pub why: String,
}

fn bad<T>(option: impl Into<String>, why: impl Into<String>) -> Result<T, BadOption> {
    Err(BadOption { option: option.into(), why: why.into() })
}

impl Backing {
    /// What the options `type`, `device`, `o` and `size` ask for. The path of [`Backing::Data`] is left empty.
    ///
    /// # Errors
    /// [`BadOption`]
    pub fn parse(options: &BTreeMap<String, String>) -> Result<Self, BadOption> {
        if let Some(key) = options.keys().find(|key| !["type", "device", "o", "size"].contains(&key.as_str()))
        {
            return bad(key, "the driver has type, device, o and size");
        }
        let get = |key: &str| options.get(key).map_or("", String::as_str);
        let words: Vec<&str> = get("o").split(',').map(str::trim).filter(|word| !word.is_empty()).collect();
        let binds = words.iter().any(|word| ["bind", "rbind"].contains(word));
        match get("type") {
            "tmpfs" => tmpfs(&words, get("size")),
            "" | "none" | "bind" if binds || get("type") == "bind" => {
                bind(get("device"), &words, get("size"))
            }
            "" if get("device").is_empty() => data(&words, get("size")),
            "" | "none" => {
                bad("device", "a directory of the host is given with type=none, o=bind and device=PATH")
            }
            other => bad(
                format!("type={other}"),
                "mounting such a file system needs root of the host: mount it there, and give type=none, o=bind and device=PATH",
            ),
        }
    }
}

fn tmpfs(words: &[&str], size: &str) -> Result<Backing, BadOption> {
    const PLAIN: [&str; 10] =
        ["ro", "rw", "exec", "noexec", "suid", "nosuid", "dev", "nodev", "noatime", "nodiratime"];
    const VALUED: [&str; 6] = ["size", "mode", "uid", "gid", "nr_inodes", "nr_blocks"];
    let mut all: Vec<String> = Vec::new();
    for word in words {
        match word.split_once('=') {
            None if PLAIN.contains(word) => {}
            Some((key, value)) if VALUED.contains(&key) && is_number(value) => {}
            _ => return bad(*word, "a tmpfs has size, mode, uid, gid, nr_inodes, ro, noexec and the like"),
        }
        all.push((*word).to_owned());
    }
    if !size.is_empty() {
        if !is_number(size) {
            return bad(format!("size={size}"), "it is no number of bytes, like 64m");
        }
        all.push(format!("size={size}"));
    }
    // As docker's own mount of it would be; the container's mount may only be stricter.
    if !words.contains(&"noexec") && !words.contains(&"exec") {
        all.push("exec".into());
    }
    Ok(Backing::Tmpfs { options: all.join(",") })
}

/// Digits with the unit or the percent sign that tmpfs takes.
fn is_number(text: &str) -> bool {
    let digits = text.strip_suffix(['k', 'K', 'm', 'M', 'g', 'G', '%']).unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

fn bind(device: &str, words: &[&str], size: &str) -> Result<Backing, BadOption> {
    if !device.starts_with('/') || device.contains('\0') {
        return bad(format!("device={device}"), "a bind needs the absolute path of a directory");
    }
    if !size.is_empty() {
        return bad("size", NO_QUOTA);
    }
    let known = [
        "bind", "rbind", "ro", "rw", "exec", "noexec", "nosuid", "suid", "nodev", "dev", "private",
        "rprivate",
    ];
    if let Some(word) = words.iter().find(|word| !known.contains(word)) {
        return bad(*word, "a bind has bind, rbind, ro and noexec");
    }
    Ok(Backing::Bind {
        path: device.into(),
        recursive: words.contains(&"rbind"),
        read_only: words.contains(&"ro"),
        no_exec: words.contains(&"noexec"),
    })
}

const NO_QUOTA: &str =
    "limits of directories need quotas that only root of the host can set; type=tmpfs has a size";

fn data(words: &[&str], size: &str) -> Result<Backing, BadOption> {
    if !size.is_empty() {
        return bad("size", NO_QUOTA);
    }
    let (mut uid, mut gid) = (None, None);
    for word in words {
        match word.split_once('=') {
            Some(("uid", id)) if id.parse::<u32>().is_ok() => uid = id.parse().ok(),
            Some(("gid", id)) if id.parse::<u32>().is_ok() => gid = id.parse().ok(),
            Some(("size" | "inodes", _)) => return bad(*word, NO_QUOTA),
            None if *word == "rw" => {}
            _ => return bad(*word, "a directory of the store has uid and gid"),
        }
    }
    let owner = (uid.is_some() || gid.is_some()).then(|| (uid.unwrap_or(0), gid.unwrap_or(0)));
    Ok(Backing::Data { path: PathBuf::new(), owner })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Backing, BadOption> {
        let pairs = text.split(' ').filter_map(|pair| pair.split_once('='));
        Backing::parse(&pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
    }

    #[test]
    fn options_as_the_local_driver_takes_them() {
        assert_eq!(parse("").unwrap(), Backing::Data { path: PathBuf::new(), owner: None });
        assert_eq!(parse("o=uid=7").unwrap(), Backing::Data { path: PathBuf::new(), owner: Some((7, 0)) });
        let bind = Backing::Bind { path: "/srv".into(), recursive: false, read_only: true, no_exec: false };
        assert_eq!(parse("type=none device=/srv o=bind,ro").unwrap(), bind);
        let Backing::Bind { recursive: true, .. } = parse("device=/srv o=rbind").unwrap() else { panic!() };
        let options = "size=10m,uid=3,exec".into();
        assert_eq!(parse("type=tmpfs device=tmpfs o=size=10m,uid=3").unwrap(), Backing::Tmpfs { options });
        let options = "noexec,size=5%".into();
        assert_eq!(parse("type=tmpfs size=5% o=noexec").unwrap(), Backing::Tmpfs { options });
    }

    #[test]
    fn what_cannot_work_is_refused_by_name() {
        for (text, option) in [
            ("type=nfs device=:/x o=addr=1.2.3.4", "type=nfs"),
            ("type=ext4 device=/dev/sda1", "type=ext4"),
            ("type=none o=bind", "device="),
            ("type=none o=bind device=rel", "device=rel"),
            ("device=/srv", "device"),
            ("size=10m", "size"),
            ("o=size=10m", "size=10m"),
            ("o=uid=x", "uid=x"),
            ("odd=1", "odd"),
            ("type=tmpfs o=size=1m;x", "size=1m;x"),
            ("type=tmpfs o=huge=always", "huge=always"),
            ("type=none o=bind,shared device=/srv", "shared"),
        ] {
            assert_eq!(parse(text).unwrap_err().option, option, "{text}");
        }
    }
}
