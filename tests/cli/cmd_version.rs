//! `version`, `--version`

use crate::support::Env;

#[test]
fn version_in_all_forms() {
    let env = Env::new();
    let version = env!("CARGO_PKG_VERSION");
    env.run(["--version"]).success().prints(&format!("strate version {version}"));
    env.run(["-v"]).success().prints(&format!("strate version {version}"));
    env.run(["version", "--format", "{{.Server.Version}}"]).success().prints(version);
    env.run(["version", "-f", "{{.Client.Version}}"]).success().prints(version);
    let json = env.run(["version", "--format", "json"]).success().json();
    assert_eq!(json["Client"]["Version"], version);
}
