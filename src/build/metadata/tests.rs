use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::build::scope::{Globals, Platforms};

/// Apply the metadata instructions of the only stage to `config`; the history texts.
fn apply_to(config: &mut ImageConfig, body: &str) -> Result<Vec<String>, MetadataError> {
    let file = crate::build::parse(format!("FROM scratch\n{body}").as_bytes(), "Dockerfile").unwrap();
    let platform = Platform::new("linux", "amd64", None);
    let platforms = Platforms { build: &platform, target: &platform, target_stage: None };
    let globals = Globals::new(&file, &BTreeMap::new(), platforms).unwrap();
    let mut scope = Scope::new(Arc::new(globals), file.escape, &config.config);
    let mut texts = Vec::new();
    for line in &file.stages[0].instructions {
        texts.extend(apply(config, &line.value, &mut scope)?.map(|text| text.created_by));
    }
    Ok(texts)
}

fn from_scratch(body: &str) -> (ImageConfig, Vec<String>) {
    let mut config = scratch_config(&Platform::new("linux", "amd64", None));
    let texts = apply_to(&mut config, body).unwrap_or_else(|error| panic!("{body}: {error}"));
    (config, texts)
}

#[test]
fn history_texts() {
    for (body, text) in [
        ("ARG A=1", "ARG A=1"),
        ("ARG B", "ARG B"),
        ("ENV E=1 F='2 3'", "ENV E=1 F=2 3"),
        ("LABEL l=m", "LABEL l=m"),
        ("USER 33", "USER 33"),
        ("EXPOSE 80 90/udp", "EXPOSE [80/tcp 90/udp]"),
        ("EXPOSE 8080:80 127.0.0.1:9000:90/udp", "EXPOSE [90/udp 80/tcp]"),
        ("VOLUME /a /b", "VOLUME [/a /b]"),
        ("SHELL [\"/bin/sh\", \"-ec\"]", "SHELL [/bin/sh -ec]"),
        ("CMD run it", "CMD [\"/bin/sh\" \"-c\" \"run it\"]"),
        ("CMD", "CMD [\"/bin/sh\" \"-c\" \"\"]"),
        ("CMD [\"a\\w\"]", "CMD [\"/bin/sh\" \"-c\" \"[\\\"a\\\\w\\\"]\"]"),
        ("ENTRYPOINT [\"a\", \"b c\"]", "ENTRYPOINT [\"a\" \"b c\"]"),
        ("STOPSIGNAL 9", "STOPSIGNAL 9"),
        (
            "HEALTHCHECK --interval=1m30s --retries=4 CMD wget -q x || exit 1",
            "HEALTHCHECK {Test:[CMD-SHELL wget -q x || exit 1] Interval:1m30s Timeout:0s StartPeriod:0s StartInterval:0s Retries:4}",
        ),
        ("MAINTAINER me", "MAINTAINER me"),
        ("WORKDIR /w", "WORKDIR /w"),
    ] {
        assert_eq!(from_scratch(body).1, [text], "{body}");
    }
    assert!(from_scratch("ONBUILD RUN x").1.is_empty());
}

#[test]
fn environment_and_labels() {
    let (config, _) =
        from_scratch("ENV A=old\nENV A=new B=$A\nENV C=$A\nLABEL \"b c\"=\"$A e\" x=1\nLABEL x=2\n");
    assert_eq!(config.config.env[1..], ["A=new", "B=old", "C=new"]);
    assert_eq!(config.config.labels["b c"], "new e");
    assert_eq!(config.config.labels["x"], "2");
}

#[test]
fn working_directories() {
    let path = |body| from_scratch(body).0.config.working_dir;
    assert_eq!(path("WORKDIR a\nWORKDIR ../b/./c"), "/b/c");
    assert_eq!(path("WORKDIR /a/../b/"), "/a/../b/");
    assert_eq!(path("ENV W=x\nWORKDIR /a/$W\nWORKDIR ${W}2"), "/a/x/x2");
    assert_eq!(path("WORKDIR /a\nWORKDIR $NOPE"), "/a");
    let mut config = scratch_config(&Platform::host());
    let mut scope = Scope::new(Arc::default(), '\\', &config.config);
    for (path, empty_layer) in [("/", true), ("/w", false)] {
        let text = apply(&mut config, &Instruction::Workdir(path.into()), &mut scope).unwrap().unwrap();
        assert_eq!(text.empty_layer, empty_layer);
    }
}

#[test]
fn cmd_and_entrypoint() {
    let base = || {
        let mut config = scratch_config(&Platform::host());
        config.config.cmd = Some(vec!["inherited".into()]);
        config.config.entrypoint = Some(vec!["old".into()]);
        config
    };
    for (body, cmd, entrypoint) in [
        ("ENTRYPOINT [\"e\"]", None, Some(vec!["e"])),
        ("ENTRYPOINT []", None, None),
        ("CMD [\"c\"]\nENTRYPOINT [\"e\"]", Some(vec!["c"]), Some(vec!["e"])),
        ("ENTRYPOINT [\"e\"]\nCMD [\"c\"]", Some(vec!["c"]), Some(vec!["e"])),
        ("CMD []", Some(vec![]), Some(vec!["old"])),
        ("SHELL [\"sh\"]\nCMD x\nSHELL [\"z\"]", Some(vec!["sh", "x"]), Some(vec!["old"])),
    ] {
        let mut config = base();
        apply_to(&mut config, body).unwrap();
        let strings = |list: Vec<&str>| list.into_iter().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(config.config.cmd, cmd.map(strings), "{body}");
        assert_eq!(config.config.entrypoint, entrypoint.map(strings), "{body}");
        assert_eq!(config.config.args_escaped, body.contains("CMD"));
    }
}

#[test]
fn mistakes() {
    let mut config = scratch_config(&Platform::host());
    for (body, text) in [
        ("EXPOSE http", "invalid containerPort: http"),
        ("STOPSIGNAL SIGSPARKLE", "invalid signal: SIGSPARKLE"),
        ("STOPSIGNAL 0", "invalid signal: 0"),
        ("VOLUME $NOPE", "VOLUME specified can not be an empty string"),
        ("ENV A=${X:?why}", "failed to process \"${X:?why}\": X: why"),
        (
            "LABEL \"quoted key\" 'v'",
            "failed to process \"\\\"quoted\": unexpected end of statement while looking for matching double-quote",
        ),
    ] {
        assert_eq!(apply_to(&mut config, body).unwrap_err().to_string(), text, "{body}");
    }
    for good in ["sigusr1", "TERM", "9", "SIGRTMIN+15", "RTMAX-1"] {
        assert!(is_signal(good), "{good}");
    }
    for bad in ["", "SIG", "RTMIN+16", "RTMIN+", "RTMAX-0", "x"] {
        assert!(!is_signal(bad), "{bad}");
    }
}

#[test]
fn bases_lose_triggers_and_gain_a_path() {
    let mut base = ImageConfig::empty(&Platform::host());
    base.created = Some("2020-01-01T00:00:00Z".into());
    base.config.on_build = vec!["RUN x".into()];
    let (config, triggers) = inherit(base);
    assert_eq!(triggers, ["RUN x"]);
    assert_eq!(config.config.env, [format!("PATH={DEFAULT_PATH}")]);
    assert!(config.created.is_none() && config.config.on_build.is_empty());
}

#[test]
fn copy_and_run_texts() {
    let copy = super::super::ast::Copy {
        sources: vec!["x".into(), "y".into()],
        dest: "/dir/".into(),
        chown: Some("1:2".into()),
        chmod: Some("640".into()),
        link: true,
        from: Some("a".into()),
        ..Default::default()
    };
    assert_eq!(history::copy("COPY", &copy), "COPY --chown=1:2 --chmod=640 x y /dir/ # buildkit");
    let mut scope = Scope::new(Arc::default(), '\\', &Default::default());
    let argv = ["/bin/sh", "-c", "ls"].map(str::to_owned);
    assert_eq!(history::run(&argv, &scope), "RUN /bin/sh -c ls # buildkit");
    for pair in [("foo", Some("bar2")), ("bar", Some("123"))] {
        scope.declare_arg(&ArgPair { name: pair.0.into(), default: pair.1.map(str::to_owned) }).unwrap();
    }
    assert_eq!(history::run(&argv, &scope), "RUN |2 foo=bar2 bar=123 /bin/sh -c ls # buildkit");
}
