//! `info`: facts about the host and the store, under docker's names where docker has one.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{host, version};
use crate::context::Context;
use crate::storage::{Method, Status, Store};
use crate::userns::Rung;

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store cannot be read.
    #[error("cannot read the store")]
    Store(#[source] crate::storage::Error),
}

/// Docker's document, and what only we have under `Strate`.
///
/// # Errors
/// When the store cannot be read.
pub fn info(cx: &Context) -> Result<Value, Error> {
    let store = super::store::read(cx).map_err(Error::Store)?;
    let images: BTreeSet<String> =
        store.images().map_err(Error::Store)?.iter().map(|image| image.id.to_string()).collect();
    let counts = count_containers(&store)?;
    let damaged = store.damaged_containers().map_err(Error::Store)?.len();
    let (driver, mut warnings) = layering(cx);
    if damaged > 0 {
        let which = if damaged == 1 {
            "1 container is damaged and".into()
        } else {
            format!("{damaged} containers are damaged and")
        };
        warnings.push(format!("{which} not counted: `strate system check` names what is wrong"));
    }
    let rung = cx.entered.as_ref().map_or(Rung::None, |entered| entered.rung);
    if rung == Rung::Single || rung == Rung::None {
        warnings.push(format!("user namespace rung `{rung}`: `strate doctor` says what is missing"));
    }
    let rootless = cx.uid != 0;
    let mut value = json!({
        "ID": "",
        "Containers": counts.iter().sum::<usize>(),
        "ContainersRunning": counts[0],
        "ContainersPaused": counts[1],
        "ContainersStopped": counts[2],
        "Images": images.len(),
        "Driver": driver,
        "DriverStatus": [["Rung", rung.to_string()], ["Mapped ids", mapped(cx)]],
        "LoggingDriver": "json-file",
        "CgroupDriver": "none",
        "CgroupVersion": host::cgroup_version().map(|version| version.to_string()).unwrap_or_default(),
        "KernelVersion": host::kernel(),
        "OperatingSystem": host::os_release("PRETTY_NAME").unwrap_or_else(|| "Linux".to_owned()),
        "OSVersion": host::os_release("VERSION_ID").unwrap_or_default(),
        "OSType": "linux",
        "Architecture": std::env::consts::ARCH,
        "NCPU": host::processors(),
        "MemTotal": host::memory(),
        "DockerRootDir": cx.root,
        "IndexServerAddress": "https://index.docker.io/v1/",
        "Name": host::name(),
        "ServerVersion": env!("CARGO_PKG_VERSION"),
        "DefaultRuntime": "strate",
        "Runtimes": {"strate": {"path": "built in"}},
        "SecurityOptions": security_options(rootless),
        "Warnings": warnings,
        "ClientInfo": version::version().client,
    });
    if let Value::Object(map) = &mut value {
        map.insert("Host".into(), podman_host(rootless));
        map.insert("Store".into(), json!({"GraphRoot": cx.root, "GraphDriverName": driver}));
        map.insert("Strate".into(), ours(cx, rung, driver, &store));
        map["Strate"]["ContainersDamaged"] = damaged.into();
    }
    Ok(value)
}

/// Running, paused, and all others.
fn count_containers(store: &Store) -> Result<[usize; 3], Error> {
    let mut counts = [0; 3];
    for container in store.containers().map_err(Error::Store)? {
        let which = match container.state().map_err(Error::Store)?.status {
            Status::Running | Status::Restarting => 0,
            Status::Paused => 1,
            Status::Created | Status::Exited | Status::Dead => 2,
        };
        counts[which] += 1;
    }
    Ok(counts)
}

/// How root file systems are made, by trying, and what there is to say about it.
fn layering(cx: &Context) -> (&'static str, Vec<String>) {
    let probed = super::store::write(cx, |_| ()).and_then(|store| store.probe_layering());
    match probed {
        Ok(Method::Overlay) => ("overlay", Vec::new()),
        Ok(Method::Copy) => {
            ("copy", vec!["root file systems are copied: overlay does not work here".to_owned()])
        }
        Err(error) => ("none", vec![format!("no root file system can be made: {error}")]),
    }
}

fn mapped(cx: &Context) -> String {
    match cx.entered.as_ref().map_or(1, |entered| entered.mapped_ids) {
        u32::MAX => "all".to_owned(),
        count => count.to_string(),
    }
}

fn security_options(rootless: bool) -> Vec<&'static str> {
    let mut options = vec!["name=seccomp,profile=builtin"];
    if rootless {
        options.push("name=rootless");
    }
    options
}

/// The few fields that scripts written for podman ask.
fn podman_host(rootless: bool) -> Value {
    json!({
        "Arch": version::go_arch(),
        "Os": "linux",
        "Kernel": host::kernel(),
        "Hostname": host::name(),
        "Security": {"Rootless": rootless, "SECCOMPEnabled": true},
    })
}

fn ours(cx: &Context, rung: Rung, driver: &str, store: &Store) -> Value {
    let refused: Vec<Value> = cx
        .entered
        .iter()
        .flat_map(|entered| &entered.refused)
        .map(|(rung, why)| json!({"Rung": rung.to_string(), "Why": why}))
        .collect();
    // A store that is made by this very command was probed after it was opened for reading.
    let probe = store.probe();
    json!({
        "Rung": rung.to_string(),
        "Refused": refused,
        "MappedIds": mapped(cx),
        "Layering": driver,
        "AdditionalStores": super::image_stores::additional(cx),
        "FileSystem": probe.as_ref().map(|probe| probe.file_system.clone()),
        "Probe": probe,
    })
}
