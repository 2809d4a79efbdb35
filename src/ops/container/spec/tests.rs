use super::*;

fn list(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn image(entrypoint: &[&str], cmd: &[&str]) -> ContainerConfig {
    ContainerConfig {
        entrypoint: Some(list(entrypoint)).filter(|l| !l.is_empty()),
        cmd: Some(list(cmd)).filter(|l| !l.is_empty()),
        ..Default::default()
    }
}

#[test]
fn entrypoint_and_command_follow_docker() {
    for (image, entrypoint, command, args) in [
        (image(&["e"], &["c"]), None, &[][..], Some(&["e", "c"][..])),
        (image(&["e"], &["c"]), None, &["x", "y"], Some(&["e", "x", "y"])),
        (image(&["e"], &["c"]), Some(&["n"][..]), &[], Some(&["n"])),
        (image(&["e"], &["c"]), Some(&["n"]), &["x"], Some(&["n", "x"])),
        (image(&["e"], &["c"]), Some(&[]), &["x"], Some(&["x"])),
        (image(&["e"], &["c"]), Some(&[]), &[], None),
        (image(&[], &["c"]), None, &[], Some(&["c"])),
        (image(&[], &[]), None, &[], None),
        (image(&["e"], &[]), None, &[], Some(&["e"])),
    ] {
        let user =
            Overrides { entrypoint: entrypoint.map(list), command: list(command), ..Default::default() };
        let merged = merge(&image, user);
        assert_eq!(merged.ok().map(|spec| spec.args()), args.map(list));
    }
}

#[test]
fn environments_merge_as_docker_merges_them() {
    let mut image = image(&[], &["c"]);
    image.env = list(&["PATH=/p", "A=1", "B=2", "bad"]);
    let user = Overrides { env: list(&["A=0", "C=3", "A=9", "B"]), tty: true, ..Default::default() };
    let spec = merge(&image, user).unwrap();
    assert_eq!(spec.config.env, ["A=9", "C=3", "PATH=/p"]);
    assert_eq!(spec.environment("h"), ["PATH=/p", "HOSTNAME=h", "TERM=xterm", "A=9", "C=3"]);
}

#[test]
fn variables_of_the_image_can_be_left_out_and_the_hosts_lie_below() {
    let mut image = image(&[], &["c"]);
    image.env = list(&["A=1", "B=2"]);
    let merged = |unset: &[&str], unset_all: bool| {
        let inherited_env =
            InheritedEnv { host: list(&["B=h", "C=h", "D=h"]), unset: list(unset), unset_all };
        let user = Overrides { env: list(&["D=u"]), inherited_env, ..Default::default() };
        merge(&image, user).unwrap().config.env
    };
    assert_eq!(merged(&[], false), ["D=u", "A=1", "B=2", "C=h"]);
    assert_eq!(merged(&["B"], false), ["D=u", "A=1", "B=h", "C=h"]);
    assert_eq!(merged(&[], true), ["D=u", "B=h", "C=h"]);
}

#[test]
fn image_volumes_give_way_to_mounts_and_must_be_sane() {
    let mut config = image(&[], &["c"]);
    config.volumes.insert("/data/".into(), Default::default());
    config.volumes.insert("logs".into(), Default::default());
    let mount = mounts::volume_flag("/srv:/data", std::path::Path::new("/")).unwrap();
    let spec = merge(&config, Overrides { mounts: vec![mount], ..Default::default() }).unwrap();
    let targets: Vec<&str> = spec.mounts.iter().map(|m| m.target.as_str()).collect();
    assert_eq!(targets, ["/data", "/logs"]);
    assert_eq!(spec.anonymous_volumes().count(), 1);
    for bad in ["/", "../..", "/proc", "/proc/x", "/sys", "/dev", ""] {
        let mut config = image(&[], &["c"]);
        config.volumes.insert(bad.into(), Default::default());
        assert!(merge(&config, Overrides::default()).is_err(), "{bad}");
    }
}

#[test]
fn host_names() {
    let mut spec = ContainerSpec::default();
    let id = "0123456789abcdef";
    assert_eq!(spec.host_name(id, "box"), "0123456789ab");
    spec.host.network = NetworkMode::Host;
    assert_eq!(spec.host_name(id, "box"), "box");
    spec.hostname = "mine".into();
    assert_eq!(spec.host_name(id, "box"), "mine");
}

#[test]
fn security_options() {
    let mut security = Security::default();
    for good in ["no-new-privileges", "no-new-privileges:true", "seccomp=unconfined", "label=disable"] {
        security.add(good).unwrap();
    }
    assert!(security.no_new_privileges && security.seccomp_unconfined);
    security.add("mask=/a:/b/../c").unwrap();
    security.add("unmask=/proc/acpi").unwrap();
    assert_eq!(security.mask, ["/a", "/c"]);
    assert!(security.leaves("/proc/acpi") && !security.leaves("/proc/keys"));
    security.add("unmask=ALL").unwrap();
    assert!(security.leaves("/proc/keys"));
    for bad in
        ["mask=relative", "unmask=", "mask", "seccomp=/x.json", "apparmor=p", "odd", "no-new-privileges=odd"]
    {
        assert!(security.add(bad).is_err(), "{bad}");
    }
}

#[test]
fn what_is_stored_reads_back() {
    let mut image = image(&["e"], &["c"]);
    image.volumes.insert("/v".into(), Default::default());
    let spec = merge(&image, Overrides::default()).unwrap();
    let value = serde_json::to_value(&spec).unwrap();
    assert_eq!(serde_json::from_value::<ContainerSpec>(value).unwrap(), spec);
}
