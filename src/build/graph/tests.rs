use std::collections::BTreeMap;

use super::*;
use crate::build::scope::Platforms;

struct Built {
    file: Dockerfile,
    globals: Globals,
}

fn built(source: &str, build_args: &[(&str, &str)]) -> Built {
    let file = crate::build::parse(source.as_bytes(), "Dockerfile").unwrap();
    let args: BTreeMap<_, _> = build_args.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let platform = Platform::new("linux", "amd64", None);
    let platforms = Platforms { build: &platform, target: &platform, target_stage: None };
    let globals = Globals::new(&file, &args, platforms).unwrap();
    Built { file, globals }
}

fn with<T>(source: &str, target: Option<&str>, use_it: impl FnOnce(Graph<'_>) -> T) -> Result<T, GraphError> {
    let built = built(source, &[]);
    Graph::new(&built.file, &built.globals, Options { target, named_contexts: None }).map(use_it)
}

fn order(source: &str, target: Option<&str>) -> Vec<usize> {
    with(source, target, |graph| graph.order().unwrap()).unwrap()
}

fn error(source: &str) -> String {
    match with(source, None, |graph| graph.order()) {
        Ok(Err(error)) | Err(error) => error.to_string(),
        Ok(Ok(order)) => panic!("{source}: {order:?}"),
    }
}

#[test]
fn only_needed_stages_are_ordered() {
    let source = "FROM a AS one\nFROM b AS two\nRUN x\nFROM one AS three\nCOPY --from=1 x y\nFROM scratch\nRUN --mount=from=ONE,target=/x y\n";
    assert_eq!(order(source, None), [0, 3]);
    assert_eq!(order(source, Some("Three")), [0, 1, 2]);
    assert_eq!(order(source, Some("two")), [1]);
}

#[test]
fn bases() {
    let base =
        |source: &str, index: usize| with(source, None, |graph| graph.get(index).base.clone()).unwrap();
    for (source, index, expected) in [
        ("FROM scratch\n", 0, Base::Scratch),
        ("FROM a:1\n", 0, Base::External("a:1".into())),
        ("ARG B\nFROM ${B:-x}\n", 0, Base::External("x".into())),
        ("FROM x AS b\nFROM b\n", 1, Base::Stage(0)),
        ("FROM b AS b\n", 0, Base::External("b".into())),
        ("FROM x AS b\nFROM y AS b\nFROM b\n", 2, Base::Stage(1)),
        ("ARG S=b\nFROM x AS st-b\nFROM st-$S\n", 1, Base::Stage(0)),
        ("FROM x AS busybox\nFROM busybox\n", 1, Base::Stage(0)),
    ] {
        assert_eq!(base(source, index), expected, "{source}");
    }
}

#[test]
fn mistakes() {
    for (source, text) in [
        ("ARG BASE\nFROM $BASE\n", "base name ($BASE) should not be blank"),
        ("FROM a::b AS x\nFROM scratch\n", "failed to parse stage name \"a::b\": invalid reference format"),
        (
            "FROM scratch AS Stage0\nFROM Stage0\n",
            "failed to parse stage name \"Stage0\": invalid reference format: repository name (library/Stage0) must be lowercase",
        ),
        ("FROM scratch AS a\nCOPY --from=a /x /y\n", "circular dependency detected on stage: a"),
        ("FROM scratch AS a\nCOPY --from=b / /\nFROM a AS b\n", "circular dependency detected on stage: a"),
        (
            "FROM scratch AS a\nCOPY --from=1 / /\nFROM scratch AS b\nFROM a\n",
            "cannot copy from stage \"b\", it needs to be defined before current stage \"a\"",
        ),
        (
            "FROM scratch\nRUN --mount=from=b,target=/x y\nFROM scratch AS b\nFROM b\nCOPY --from=0 / /\n",
            "cannot mount from stage \"b\", stage needs to be defined before current command",
        ),
        ("FROM scratch\nCOPY --from=5 / /\n", "invalid stage index 5"),
        ("FROM scratch\nCOPY --from=-1 / /\n", "invalid stage index -1"),
        (
            "FROM scratch\nCOPY --from=$X / /\n",
            "variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a workaround",
        ),
        (
            "FROM --platform=$TARGETPLATFROM a\n",
            "empty platform value from expression $TARGETPLATFROM (did you mean TARGETPLATFORM?)",
        ),
        ("FROM --platform=a//b a\n", "failed to parse platform a//b"),
        ("FROM ${X:?no}\n", "failed to process \"${X:?no}\": X: no"),
    ] {
        assert_eq!(error(source), text, "{source}");
    }
    let unknown = with("FROM a AS build\n", Some("bulid"), |_| ()).unwrap_err();
    assert_eq!(unknown.to_string(), "target stage \"bulid\" could not be found (did you mean build?)");
    let index = with("FROM a\nFROM b\n", Some("0"), |_| ()).unwrap_err();
    assert_eq!(index.to_string(), "target stage \"0\" could not be found");
}

#[test]
fn unreachable_forward_references_do_not_matter() {
    assert_eq!(order("FROM scratch AS a\nCOPY --from=b / /\nFROM scratch AS b\n", None), [1]);
}

#[test]
fn triggers_fire_in_children_and_bring_dependencies() {
    let source =
        "FROM x AS files\nFROM scratch AS p\nONBUILD COPY --from=files / /\nFROM p AS c\nRUN a\nFROM c\n";
    let counts = with(source, None, |graph| {
        assert_eq!(graph.order().unwrap(), [0, 1, 2, 3]);
        (0..4).map(|stage| graph.get(stage).triggers.len()).collect::<Vec<_>>()
    });
    assert_eq!(counts.unwrap(), [0, 0, 1, 0]);
    with("FROM x AS files\nFROM img\nRUN a\n", None, |mut graph| {
        assert_eq!(graph.order().unwrap(), [1]);
        graph.add_triggers(1, &["COPY --from=files / /".into()]).unwrap();
        assert_eq!(graph.order().unwrap(), [0, 1]);
        assert_eq!(graph.instructions(1).map(|(trigger, _)| trigger).collect::<Vec<_>>(), [true, false]);
        let error = graph.add_triggers(1, &["FROB x".into()]).unwrap_err();
        assert_eq!(error.to_string(), "unknown instruction: FROB (did you mean FROM?)");
        assert_eq!(error.span(), Some(Span { first: 2, last: 2 }));
    })
    .unwrap();
}

#[test]
fn named_contexts_replace_stages_and_stand_for_bases() {
    let built =
        built("FROM x AS src\nRUN a\nFROM Not/A:valid:ref\nCOPY --from=src / /\nCOPY --from=img / /\n", &[]);
    let names = BTreeSet::from(["src".to_owned(), "Not/A:valid:ref".to_owned()]);
    let options = Options { target: None, named_contexts: Some(&names) };
    let graph = Graph::new(&built.file, &built.globals, options).unwrap();
    assert_eq!(graph.get(0).base, Base::Replaced("src".into()));
    assert_eq!(graph.instructions(0).count(), 0);
    assert_eq!(graph.external_inputs(1).into_iter().collect::<Vec<_>>(), ["img"]);
    assert_eq!(context_name("docker.io/library/a:latest"), "a");
}

#[test]
fn undeclared_names_in_from_are_remarked() {
    let warnings = with("ARG VERSION=1\nFROM a:${VERSON}x\n", None, |graph| graph.warnings).unwrap();
    assert_eq!(
        warnings[0].message,
        "argument `VERSON` of FROM is not declared before it (did you mean VERSION?)"
    );
}

#[test]
fn many_stages_are_no_problem() {
    let mut source = String::from("FROM scratch AS s0\n");
    for index in 1..3000 {
        source.push_str(&format!("FROM s{} AS s{index}\n", index - 1));
    }
    assert_eq!(order(&source, None).len(), 3000);
}
