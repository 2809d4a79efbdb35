//! `inspect` of containers: docker's document, with a few keys of our own.

use serde_json::{Map, Value, json};

use super::container::health;
use super::container::mounts::{Mount, MountKind};
use super::container::plan;
use super::container::spec::DEFAULT_SHM;
use super::container::values::Ulimit;
use super::container::{ContainerSpec, Error, NetworkMode, cgroup, network};
use super::create::spec_of;
use super::ps::{network_name, state_word};
use crate::runtime;
use crate::runtime::cgroup::{Device, Limits};
use crate::storage::{ContainerDir, ContainerState, Store};

/// Go's zero time, which docker shows where nothing happened yet.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// Everything about a container, in docker's keys; `size` adds what its own files take.
///
/// # Errors
/// When the container is unknown or its description cannot be read.
pub fn inspect_container(store: &Store, text: &str, size: bool) -> Result<Value, Error> {
    let dir = store.find_container(text)?;
    let spec = spec_of(&dir)?;
    let mut state = dir.state()?;
    // An update may have put in force what was not at the start.
    if let Some(record) = cgroup::of(&dir) {
        state.without_effect.retain(|flag| record.without_effect.contains(flag));
    }
    let args = spec.args();
    let mut all = json!({
        "Id": dir.record.id,
        "Created": dir.record.created,
        "Path": args.first().cloned().unwrap_or_default(),
        "Args": args.get(1..).unwrap_or_default(),
        "State": state_value(&state),
        "Image": dir.record.image.to_string(),
        "ImageName": dir.record.image_name,
        "ImageDigest": dir.record.manifest.to_string(),
        "ResolvConfPath": "",
        "HostnamePath": "",
        "HostsPath": "",
        "LogPath": if spec.host.no_log { String::new() } else { dir.log().display().to_string() },
        "Name": format!("/{}", dir.record.name),
        "RestartCount": state.restarts,
        "Driver": "overlay",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": Value::Null,
        "HostConfig": host_config(&spec, &state)?,
        "GraphDriver": graph_driver(&dir),
        "Mounts": spec.mounts.iter().filter_map(|mount| mount_value(&dir, mount)).collect::<Vec<_>>(),
        "Config": config(&dir, &spec),
        "NetworkSettings": network_settings(&dir, &spec, &state),
        "ImageManifestDescriptor": Value::Null,
        "ImageStores": dir.record.stores,
    });
    if let Some(health) = health::command(&spec).and_then(|_| health::read(&dir)) {
        all["State"]["Health"] = serde_json::to_value(health).unwrap_or_default();
    }
    tell_lost_stores(store, &dir);
    if size {
        all["SizeRw"] = dir.size().into();
    }
    Ok(all)
}

/// What the container cannot be started without is said before it is.
fn tell_lost_stores(store: &Store, dir: &ContainerDir) {
    for path in dir.record.stores.iter().filter(|path| !Store::is_readable(path)) {
        store.remark(&format!(
            "container `{}` needs layers of the additional image store `{}`, which is not there",
            dir.record.name,
            path.display()
        ));
    }
}

fn state_value(state: &ContainerState) -> Value {
    let word = state_word(state);
    json!({
        "Status": word,
        "Running": state.is_running(),
        "Paused": word == "paused",
        "Restarting": word == "restarting",
        "OOMKilled": state.oom_killed,
        "Dead": false,
        "Pid": state.pid.unwrap_or(0),
        "ExitCode": state.exit_code.unwrap_or(0),
        "Error": state.error.as_deref().unwrap_or_default(),
        "StartedAt": state.started_at.as_deref().unwrap_or(NEVER),
        "FinishedAt": state.finished_at.as_deref().unwrap_or(NEVER),
    })
}

fn graph_driver(dir: &ContainerDir) -> Value {
    let path = |name: &str| dir.path.join(name).display().to_string();
    json!({ "Name": "overlay", "Data": { "UpperDir": path("upper"), "WorkDir": path("work") } })
}

fn mount_value(dir: &ContainerDir, mount: &Mount) -> Option<Value> {
    let rw = !mount.read_only;
    let mode = if rw { "" } else { "ro" };
    let propagation = if mount.propagation.is_empty() { "rprivate" } else { &mount.propagation };
    Some(match &mount.kind {
        MountKind::Bind { source } => json!({
            "Type": "bind", "Source": source, "Destination": mount.target, "Mode": mode, "RW": rw,
            "Propagation": propagation,
        }),
        MountKind::Volume { name, .. } => json!({
            "Type": "volume", "Name": name, "Source": dir.volume_data(name), "Destination": mount.target,
            "Driver": "local", "Mode": mode, "RW": rw, "Propagation": "",
        }),
        // Docker shows these under HostConfig.Tmpfs.
        MountKind::Tmpfs { .. } => return None,
    })
}

/// Docker's `Config`: the merged image config and what concerns the terminal.
fn config(dir: &ContainerDir, spec: &ContainerSpec) -> Value {
    let attached = !spec.detached;
    let mut all = json!({
        "Hostname": spec.host_name(&dir.record.id, ""),
        "Domainname": spec.host.domainname,
        "User": spec.config.user,
        "AttachStdin": attached && spec.open_stdin,
        "AttachStdout": attached,
        "AttachStderr": attached,
        "Tty": spec.tty,
        "OpenStdin": spec.open_stdin,
        "StdinOnce": attached && spec.open_stdin,
        "Env": spec.config.env,
        "Cmd": spec.config.cmd,
        "Image": dir.record.image_name,
        "Volumes": Value::Null,
        "WorkingDir": spec.config.working_dir,
        "Entrypoint": spec.config.entrypoint,
        "Labels": spec.config.labels,
        "Annotations": spec.host.annotations,
    });
    // The keys that docker leaves out when they are empty, as the image config writes them.
    let merged = serde_json::to_value(&spec.config).unwrap_or_default();
    for key in ["ExposedPorts", "Volumes", "Healthcheck", "OnBuild", "StopSignal", "StopTimeout", "Shell"] {
        if let Some(value) = merged.get(key) {
            all[key] = value.clone();
        }
    }
    all
}

fn host_config(spec: &ContainerSpec, state: &ContainerState) -> Result<Value, Error> {
    let host = &spec.host;
    let private = |host: bool| if host { "host" } else { "private" };
    let confined = !host.privileged && !host.security.system_paths_unconfined;
    let paths = |list: Vec<String>| if confined { json!(list) } else { json!([]) };
    let effective: Vec<String> =
        plan::capabilities(host)?.bounding.iter().map(|number| runtime::capability::name(*number)).collect();
    let mut all = json!({
        "Binds": binds(spec),
        "ContainerIDFile": "",
        "LogConfig": { "Type": if host.no_log { "none" } else { "json-file" }, "Config": {} },
        "NetworkMode": match host.network { NetworkMode::Default => "default".to_owned(), _ => network_name(spec) },
        "PortBindings": port_bindings(spec),
        "RestartPolicy": { "Name": host.restart.name(), "MaximumRetryCount": host.restart.most().unwrap_or(0) },
        "AutoRemove": host.auto_remove,
        "VolumeDriver": "",
        "VolumesFrom": Value::Null,
        "ConsoleSize": [0, 0],
        "CapAdd": list_or_null(&host.cap_add),
        "CapDrop": list_or_null(&host.cap_drop),
        "EffectiveCaps": effective,
        "CgroupnsMode": private(host.cgroup_host),
        "Dns": host.dns,
        "DnsOptions": host.dns_options,
        "DnsSearch": host.dns_search,
        "ExtraHosts": list_or_null(&host.extra_hosts.iter().map(|(n, a)| format!("{n}:{a}")).collect::<Vec<_>>()),
        "GroupAdd": list_or_null(&host.group_add),
        "IpcMode": private(host.ipc_host),
        "Cgroup": "",
        "Links": Value::Null,
        "OomScoreAdj": if has_effect(state, "--oom-score-adj") { host.oom_score_adj.unwrap_or(0) } else { 0 },
        "PidMode": "",
        "Privileged": host.privileged,
        "PublishAllPorts": host.wishes.publish_all,
        "ReadonlyRootfs": host.read_only,
        "SecurityOpt": list_or_null(&host.security.given),
        "UTSMode": if host.uts_host { "host" } else { "" },
        "UsernsMode": host.user_namespace.name(),
        "ShmSize": host.shm_size.unwrap_or(DEFAULT_SHM),
        "Runtime": "strate",
        "Isolation": "",
        "CgroupParent": host.cgroup_parent,
        "Ulimits": host.ulimits.iter().map(ulimit).collect::<Vec<_>>(),
        "MaskedPaths": paths(runtime::default_masked_paths()),
        "ReadonlyPaths": paths(runtime::default_read_only_paths()),
        "Init": host.init,
    });
    if let (Value::Object(all), Value::Object(limits)) = (&mut all, limits(&host.limits, state)) {
        all.extend(limits);
    }
    let tmpfs = tmpfs(spec);
    if !tmpfs.is_empty() {
        all["Tmpfs"] = tmpfs.into();
    }
    Ok(all)
}

/// Whether a flag's limit was in force when the container was last started.
fn has_effect(state: &ContainerState, flag: &str) -> bool {
    !state.without_effect.iter().any(|have| have == flag)
}

/// The limits in docker's keys. One that is not in force is not shown as if it were.
fn limits(limits: &Limits, state: &ContainerState) -> Value {
    let number = |flag: &str, value: Option<i64>| value.filter(|_| has_effect(state, flag)).unwrap_or(0);
    let text = |flag: &str, value: &Option<String>| {
        value.clone().filter(|_| has_effect(state, flag)).unwrap_or_default()
    };
    let devices = |flag: &str, key: &str, list: &[Device]| match list {
        list if list.is_empty() || !has_effect(state, flag) => Value::Null,
        list => list.iter().map(|device| json!({ "Path": device.path, key: device.rate })).collect(),
    };
    let memory = number("--memory", limits.memory);
    // As docker: twice the memory when nothing else was said.
    let swap = limits.memory_swap.filter(|swap| *swap != 0).unwrap_or(memory.saturating_mul(2));
    let swappiness = limits.memory_swappiness.filter(|_| has_effect(state, "--memory-swappiness"));
    let pids = limits.pids.filter(|pids| *pids != 0 && has_effect(state, "--pids-limit"));
    json!({
        "Memory": memory,
        "MemorySwap": number("--memory-swap", Some(swap)),
        "MemoryReservation": number("--memory-reservation", limits.memory_reservation),
        "MemorySwappiness": swappiness,
        "KernelMemory": number("--kernel-memory", limits.kernel_memory),
        "OomKillDisable": limits.oom_kill_disable.unwrap_or(false) && has_effect(state, "--oom-kill-disable"),
        "NanoCpus": number("--cpus", limits.nano_cpus),
        "CpuShares": number("--cpu-shares", limits.cpu_shares),
        "CpuPeriod": number("--cpu-period", limits.cpu_period),
        "CpuQuota": number("--cpu-quota", limits.cpu_quota),
        "CpuRealtimePeriod": number("--cpu-rt-period", limits.cpu_rt_period),
        "CpuRealtimeRuntime": number("--cpu-rt-runtime", limits.cpu_rt_runtime),
        "CpusetCpus": text("--cpuset-cpus", &limits.cpuset_cpus),
        "CpusetMems": text("--cpuset-mems", &limits.cpuset_mems),
        "PidsLimit": pids,
        "BlkioWeight": limits.blkio_weight.filter(|_| has_effect(state, "--blkio-weight")).unwrap_or(0),
        "BlkioWeightDevice": devices("--blkio-weight-device", "Weight", &limits.blkio_weight_device),
        "BlkioDeviceReadBps": devices("--device-read-bps", "Rate", &limits.device_read_bps),
        "BlkioDeviceWriteBps": devices("--device-write-bps", "Rate", &limits.device_write_bps),
        "BlkioDeviceReadIOps": devices("--device-read-iops", "Rate", &limits.device_read_iops),
        "BlkioDeviceWriteIOps": devices("--device-write-iops", "Rate", &limits.device_write_iops),
    })
}

fn list_or_null(list: &[String]) -> Value {
    if list.is_empty() { Value::Null } else { json!(list) }
}

fn ulimit(limit: &Ulimit) -> Value {
    json!({ "Name": limit.name, "Hard": limit.hard, "Soft": limit.soft })
}

fn binds(spec: &ContainerSpec) -> Value {
    let text = |mount: &Mount| {
        let source = match &mount.kind {
            MountKind::Bind { source } => source.display().to_string(),
            MountKind::Volume { name, anonymous: false, .. } => name.clone(),
            _ => return None,
        };
        Some(format!("{source}:{}{}", mount.target, if mount.read_only { ":ro" } else { "" }))
    };
    let all: Vec<String> = spec.mounts.iter().filter_map(text).collect();
    list_or_null(&all)
}

fn tmpfs(spec: &ContainerSpec) -> Map<String, Value> {
    let entry = |mount: &Mount| match &mount.kind {
        MountKind::Tmpfs { options } => Some((mount.target.clone(), options.clone().into())),
        _ => None,
    };
    spec.mounts.iter().filter_map(entry).collect()
}

/// What was asked for, by the container's ports.
fn port_bindings(spec: &ContainerSpec) -> Value {
    let mut all = Map::new();
    for port in &spec.host.wishes.ports {
        let ip = port.host_ip.map(|ip| ip.to_string()).unwrap_or_default();
        let binding = json!({ "HostIp": ip, "HostPort": port.host_port_text() });
        push(&mut all, port.key(), binding);
    }
    all.into()
}

fn push(map: &mut Map<String, Value>, key: String, value: Value) {
    match map.entry(key).or_insert_with(|| json!([])) {
        Value::Array(list) => list.push(value),
        other => *other = json!([value]),
    }
}

/// Both the old keys and the new ones: scripts read either. Addresses and ports are there while the container runs.
fn network_settings(dir: &ContainerDir, spec: &ContainerSpec, state: &ContainerState) -> Value {
    let running = state.is_running();
    let mut ports = Map::new();
    if running {
        for port in &state.ports {
            let binding =
                json!({ "HostIp": port.host_ip.to_string(), "HostPort": port.host_port.to_string() });
            push(&mut ports, port.key(), binding);
        }
        for key in spec.config.exposed_ports.keys() {
            ports.entry(key.clone()).or_insert(Value::Null);
        }
    }
    let address = network::address(spec).filter(|_| running);
    let ip = address.map(|ip| ip.to_string()).unwrap_or_default();
    let usual = spec.host.network.is_private() && spec.host.wishes.address.is_none();
    let gateway = match address {
        Some(ip) if usual && ip == runtime::network::ADDRESS => runtime::network::GATEWAY.to_string(),
        _ => String::new(),
    };
    let prefix = if address.is_some() { runtime::network::PREFIX } else { 0 };
    let mac = spec.host.wishes.mac.as_deref().filter(|_| running).unwrap_or_default();
    let ip6 = spec.host.wishes.address6.filter(|_| running).map(|ip| ip.to_string()).unwrap_or_default();
    let sandbox = match (running && spec.host.network.is_private(), state.pid) {
        (true, Some(pid)) => format!("/proc/{pid}/ns/net"),
        _ => String::new(),
    };
    let mut networks = Map::new();
    if !matches!(spec.host.network, NetworkMode::Container(_)) {
        networks.insert(
            network_name(spec),
            json!({
                "IPAMConfig": null, "Links": null, "Aliases": null, "MacAddress": mac, "DriverOpts": null,
                "GwPriority": 0, "NetworkID": "", "EndpointID": "", "Gateway": gateway, "IPAddress": ip,
                "IPPrefixLen": prefix, "IPv6Gateway": "", "GlobalIPv6Address": ip6, "GlobalIPv6PrefixLen": 0,
                "DNSNames": null,
            }),
        );
    }
    json!({
        "Bridge": "", "SandboxID": if sandbox.is_empty() { "" } else { &dir.record.id }, "SandboxKey": sandbox,
        "Ports": ports, "Gateway": gateway, "IPAddress": ip, "IPPrefixLen": prefix, "MacAddress": mac,
        "GlobalIPv6Address": ip6, "GlobalIPv6PrefixLen": 0, "EndpointID": "", "Networks": networks,
    })
}
