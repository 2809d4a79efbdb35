//! Commands that fix a host, in the words of its distribution.

use std::path::Path;

use crate::ops::host;

/// Before a command that only root may run.
pub(super) fn sudo(uid: u32) -> &'static str {
    if uid == 0 { "" } else { "sudo " }
}

/// The package manager's command for a package, by the names that it has with each: Debian, Fedora, Alpine, Arch, SUSE.
fn install(uid: u32, names: [&str; 5], what: &str) -> String {
    let ids = [host::os_release("ID"), host::os_release("ID_LIKE")].map(Option::unwrap_or_default).join(" ");
    let is = |names: &[&str]| ids.split(' ').any(|id| names.contains(&id));
    let [debian, fedora, alpine, arch, suse] = names;
    let command = if is(&["debian", "ubuntu"]) {
        format!("apt-get install -y {debian}")
    } else if is(&["fedora", "rhel", "centos"]) {
        format!("dnf install -y {fedora}")
    } else if is(&["alpine"]) {
        format!("apk add {alpine}")
    } else if is(&["arch"]) {
        format!("pacman -S --needed {arch}")
    } else if is(&["suse", "opensuse"]) {
        format!("zypper install -y {suse}")
    } else {
        format!("<your package manager> install {what}")
    };
    format!("{}{command}", sudo(uid))
}

/// Install newuidmap and newgidmap.
pub(super) fn install_uidmap(uid: u32) -> String {
    let names = ["uidmap", "shadow-utils", "shadow-uidmap", "shadow", "shadow"];
    install(uid, names, "the package with newuidmap (uidmap or shadow-utils)")
}

/// Install pasta.
pub(super) fn install_passt(uid: u32) -> String {
    install(uid, ["passt"; 5], "passt, or slirp4netns")
}

/// Give a user subordinate ids that nobody has yet.
pub(super) fn add_subordinate_ids(uid: u32) -> String {
    let name = host::user_name(uid).unwrap_or_else(|| uid.to_string());
    let texts = ["/etc/subuid", "/etc/subgid"].map(|path| std::fs::read_to_string(path).unwrap_or_default());
    let first = first_free(&texts.concat());
    let last = first + 65_535;
    format!("{}usermod --add-subuids {first}-{last} --add-subgids {first}-{last} {name}", sudo(uid))
}

/// The first id above all ranges of `subuid(5)` lines, and never below 100000.
fn first_free(ranges: &str) -> u64 {
    let ends = ranges.lines().filter_map(|line| {
        let mut fields = line.split(':').skip(1);
        let start: u64 = fields.next()?.trim().parse().ok()?;
        let count: u64 = fields.next()?.trim().parse().ok()?;
        start.checked_add(count)
    });
    ends.max().unwrap_or(0).max(100_000)
}

/// What helps against a refusal of user namespaces, by the cause that was found.
pub(super) fn for_refusal(why: &str, uid: u32, path: &[std::path::PathBuf]) -> Vec<String> {
    let sudo = sudo(uid);
    if why.contains("no entry for user") {
        return vec![add_subordinate_ids(uid)];
    }
    if why.contains("not installed") {
        return vec![install_uidmap(uid)];
    }
    if why.contains("neither setuid") {
        let programs: Vec<String> = ["newuidmap", "newgidmap"]
            .iter()
            .filter_map(|name| host::find_program(name, path))
            .map(|program| program.display().to_string())
            .collect();
        return vec![format!("{sudo}chmod u+s {}", programs.join(" "))];
    }
    for (name, value) in [("user.max_user_namespaces", 15_000), ("kernel.unprivileged_userns_clone", 1)] {
        if why.contains(name) {
            return vec![
                format!("{sudo}sysctl -w {name}={value}"),
                format!("echo {name}={value} | {sudo}tee /etc/sysctl.d/60-user-namespaces.conf"),
            ];
        }
    }
    if why.contains("AppArmor") {
        return apparmor_profile(sudo);
    }
    if host::in_container() {
        return vec![
            "podman run --security-opt seccomp=unconfined --security-opt unmask=/proc … (or docker run \
             --security-opt seccomp=unconfined --security-opt systempaths=unconfined …) for the container around this"
                .to_owned(),
        ];
    }
    Vec::new()
}

/// A profile that lets this very program use user namespaces.
fn apparmor_profile(sudo: &str) -> Vec<String> {
    let own = std::fs::read_link("/proc/self/exe")
        .unwrap_or_else(|_| Path::new("/usr/local/bin/strate").to_owned());
    let profile = format!(
        "abi <abi/4.0>,\\ninclude <tunables/global>\\nprofile strate \"{}\" flags=(unconfined) {{\\n  userns,\\n}}\\n",
        own.display()
    );
    vec![format!(
        "printf '{profile}' | {sudo}tee /etc/apparmor.d/strate && {sudo}apparmor_parser -r /etc/apparmor.d/strate"
    )]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_ids_are_above_all_others() {
        for (text, expected) in [
            ("", 100_000),
            ("a:100000:65536\nb:165536:65536\n", 231_072),
            ("a:500:10\n# nonsense\nb:x:y\n", 100_000),
        ] {
            assert_eq!(first_free(text), expected, "{text:?}");
        }
    }

    #[test]
    fn each_cause_has_its_fix() {
        for (why, part) in [
            ("/etc/subuid has no entry for user `u`", "usermod --add-subuids"),
            ("`newuidmap` is not installed (package uidmap or shadow-utils)", "install"),
            ("(sysctl user.max_user_namespaces is 0)", "sysctl -w user.max_user_namespaces=15000"),
            (
                "(sysctl kernel.unprivileged_userns_clone is 0)",
                "sysctl -w kernel.unprivileged_userns_clone=1",
            ),
            ("AppArmor restricts user namespaces", "apparmor_parser -r"),
        ] {
            let fixes = for_refusal(why, 1000, &[]);
            assert!(fixes.iter().any(|fix| fix.contains(part) && fix.contains("sudo ")), "{why}: {fixes:?}");
        }
        assert!(install_uidmap(0).contains("install") && !install_uidmap(0).contains("sudo"));
    }
}
