use proptest::prelude::*;

use super::super::ast::*;
use super::*;

fn ok(source: &str) -> Dockerfile {
    parse(source.as_bytes(), "Dockerfile").unwrap_or_else(|errors| panic!("{source:?}: {errors:?}"))
}

fn instructions(body: &str) -> Vec<Instruction> {
    let file = ok(&format!("FROM scratch\n{body}"));
    file.stages[0].instructions.iter().map(|i| i.value.clone()).collect()
}

fn first_error(source: &str) -> String {
    parse(source.as_bytes(), "Dockerfile").expect_err(source)[0].to_string()
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|s| (*s).to_owned()).collect()
}

#[test]
fn stages_and_global_args() {
    let file = ok("ARG A=1 B\nFROM --platform=$P a:1 AS One\nRUN x\nfrom scratch\n");
    assert_eq!(file.global_args[0].value[1], ArgPair { name: "B".into(), default: None });
    let from = &file.stages[0].from;
    assert_eq!((from.value.base.as_str(), from.value.name.as_deref()), ("a:1", Some("one")));
    assert_eq!((from.value.platform.as_deref(), from.span.first), (Some("$P"), 2));
    assert_eq!((file.stages[1].index, file.stages[1].instructions.len()), (1, 0));
}

#[test]
fn directives_open_the_file_and_only_there() {
    let file = ok("# syntax=docker/dockerfile:1\n#Escape = `\nFROM scratch\nRUN a `\n b\n");
    assert_eq!((file.syntax.as_deref(), file.escape), (Some("docker/dockerfile:1"), '`'));
    assert_eq!(file.stages[0].instructions[0].text, "RUN a  b");
    for late in ["# remark\n# escape=`\n", "\n# escape=`\n", "#!/usr/bin/env strate\n# escape=`\n"] {
        assert_eq!(ok(&format!("{late}FROM scratch\n")).escape, '\\', "{late}");
    }
    assert_eq!(ok("#!/bin/x\n# syntax=y\nFROM scratch\n").syntax.as_deref(), Some("y"));
    assert_eq!(
        first_error("# escape=`\n# escape=\\\nFROM scratch\n"),
        "only one escape parser directive can be used"
    );
    assert_eq!(first_error("# escape=x\nFROM scratch\n"), "invalid escape token 'x' does not match ` or \\");
}

#[test]
fn continuations_comments_and_blank_lines() {
    let run = |body: &str| match instructions(body).remove(0) {
        Instruction::Run(Run { command: Command::Shell(text), .. }) => text,
        other => panic!("{other:?}"),
    };
    for (body, text) in [
        ("RUN hel\\\nlo", "hello"),
        ("RUN a \\  \n  b", "a   b"),
        ("RUN a && \\\n# gone\n  # gone too\n\n b", "a &&  b"),
        ("RUN a \\\\\n", "a \\\\"),
        ("RUN a \\", "a"),
        ("   RUN a # b", "a # b"),
        ("RUN 'a\\\n  b'", "'a  b'"),
        ("RUN a\\\r\n b\r\n", "a b"),
    ] {
        assert_eq!(run(body), text, "{body:?}");
    }
    let file = ok("\u{feff}FROM scratch\n\nRUN a \\\n b\n\nRUN <<E\nx\nE\nUSER u");
    let spans: Vec<_> = file.stages[0].instructions.iter().map(|i| (i.span.first, i.span.last)).collect();
    assert_eq!(spans, [(3, 4), (6, 8), (9, 9)]);
}

#[test]
fn every_instruction() {
    let body = r#"RUN --mount=type=cache,target=/c --mount=target=/m --network=none --security=sandbox make
RUN ["a", "b c"]
COPY --from=x --chown=1:2 --chmod=u+x --link --parents --exclude=*.md --exclude=b a b /d/
ADD --checksum=sha256:0 --keep-git-dir=true --unpack=false u /d
ENV A=1 B="two words"
ENV old style  value
LABEL "a b"='c' d=
ARG X Y='z w'
WORKDIR /a b
USER 1:2
EXPOSE 90 80/udp
VOLUME ["/a b"]
VOLUME /c /d
CMD ["x"]
ENTRYPOINT exec top
SHELL ["/bin/sh", "-ec"]
STOPSIGNAL 9
HEALTHCHECK --interval=1m30s --retries=3 CMD curl  x
HEALTHCHECK NONE
ONBUILD   run a
MAINTAINER me too
"#;
    let got = instructions(body);
    assert!(
        matches!(&got[0], Instruction::Run(run) if run.mounts == strings(&["type=cache,target=/c", "target=/m"])
        && run.network.as_deref() == Some("none") && run.command == Command::Shell("make".into()))
    );
    assert!(matches!(&got[1], Instruction::Run(run) if run.command == Command::Exec(strings(&["a", "b c"]))));
    let Instruction::Copy(copy) = &got[2] else { panic!() };
    assert_eq!(
        (copy.from.as_deref(), copy.chown.as_deref(), copy.chmod.as_deref()),
        (Some("x"), Some("1:2"), Some("u+x"))
    );
    assert_eq!((copy.sources.clone(), copy.dest.as_str()), (strings(&["a", "b"]), "/d/"));
    assert!(copy.link && copy.parents && copy.exclude == strings(&["*.md", "b"]));
    assert!(
        matches!(&got[3], Instruction::Add(add) if add.keep_git_dir == Some(true) && add.unpack == Some(false))
    );
    let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
    assert_eq!(got[4], Instruction::Env(vec![pair("A", "1"), pair("B", "\"two words\"")]));
    assert_eq!(got[5], Instruction::Env(vec![pair("old", "style  value")]));
    assert_eq!(got[6], Instruction::Label(vec![pair("\"a b\"", "'c'"), pair("d", "")]));
    assert!(matches!(&got[7], Instruction::Arg(args) if args[1].default.as_deref() == Some("'z w'")));
    assert_eq!(got[8], Instruction::Workdir("/a b".into()));
    assert_eq!(got[10], Instruction::Expose(strings(&["80/udp", "90"])));
    assert_eq!(got[11], Instruction::Volume(strings(&["/a b"])));
    assert_eq!(got[12], Instruction::Volume(strings(&["/c", "/d"])));
    assert_eq!(got[14], Instruction::Entrypoint(Command::Shell("exec top".into())));
    assert!(
        matches!(&got[17], Instruction::Healthcheck(HealthcheckInstruction::Cmd { interval: 90_000_000_000, retries: 3, command: Command::Shell(text), .. }) if text == "curl  x")
    );
    assert_eq!(got[18], Instruction::Healthcheck(HealthcheckInstruction::None));
    assert_eq!(got[19], Instruction::OnBuild("run a".into()));
    assert_eq!(got[20], Instruction::Maintainer("me too".into()));
}

#[test]
fn empty_commands() {
    for (body, command) in [
        ("CMD", Command::Shell(String::new())),
        ("CMD []", Command::Exec(vec![])),
        ("CMD ['a']", Command::Shell("['a']".into())),
    ] {
        assert_eq!(instructions(body), [Instruction::Cmd(command)]);
    }
    assert!(
        matches!(&instructions("RUN")[0], Instruction::Run(run) if run.form() == RunForm::Shell(String::new()))
    );
}

#[test]
fn heredocs_of_run() {
    let form = |body: &str| match instructions(body).remove(0) {
        Instruction::Run(run) => run.form(),
        other => panic!("{other:?}"),
    };
    for (body, expected) in [
        ("RUN <<EOF\necho $a \\\n# kept\nEOF\n", RunForm::Shell("echo $a \\\n# kept\n".into())),
        ("RUN <<-EOF\n\ta\n\tEOF\n", RunForm::Shell("a\n".into())),
        (
            "RUN <<'S'\n#!/bin/awk\nx\nS\n",
            RunForm::Script { name: "S".into(), content: "#!/bin/awk\nx\n".into() },
        ),
        (
            "RUN cat <<A | sed <<-B\na\nA\n\tb\n\tB\n",
            RunForm::Shell("cat <<A | sed <<-B\na\nA\n\tb\nB".into()),
        ),
        ("RUN << EOF\na\nEOF\n", RunForm::Shell("a\n".into())),
        ("RUN echo $((1 << 2))\n", RunForm::Shell("echo $((1 << 2))".into())),
        ("RUN cat <<'E F' > /o\nx\nE F\n", RunForm::Shell("cat <<'E F' > /o\nx\nE F".into())),
    ] {
        assert_eq!(form(body), expected, "{body:?}");
    }
}

#[test]
fn heredocs_of_copy_and_onbuild() {
    let Instruction::Copy(copy) = instructions("COPY real <<A <<'B' /d/\na\r\nA\nb $x\nB\n").remove(0) else {
        panic!()
    };
    assert_eq!((copy.sources, copy.dest.as_str()), (strings(&["real"]), "/d/"));
    let heredocs: Vec<_> =
        copy.heredocs.iter().map(|h| (h.name.as_str(), h.content.as_str(), h.expand)).collect();
    assert_eq!(heredocs, [("A", "a\r\n", true), ("B", "b $x\n", false)]);
    assert_eq!(
        instructions("ONBUILD RUN <<EOF\necho a\nEOF\nUSER x"),
        [Instruction::OnBuild("RUN <<EOF\necho a\nEOF".into()), Instruction::User("x".into())]
    );
    // The words of COPY do not join what stands apart, but the body is read all the same.
    let Instruction::Copy(copy) = instructions("COPY << EOF /o\nx\nEOF\n").remove(0) else { panic!() };
    assert_eq!((copy.sources, copy.heredocs.len()), (strings(&["<<", "EOF"]), 0));
    assert!(matches!(&instructions("RUN [\"<<EOF\"]\nUSER x")[1], Instruction::User(_)));
}

#[test]
fn mistakes_have_buildkits_texts() {
    let line2 = |text: &str| format!("dockerfile parse error on line 2: {text}");
    for (body, text) in [
        ("COPPY a /a", line2("unknown instruction: COPPY (did you mean COPY?)")),
        ("entrypiont x", line2("unknown instruction: entrypiont (did you mean entrypoint?)")),
        ("COPY --chonw=1 a /a", line2("unknown flag: --chonw (did you mean chown?)")),
        ("CMD --foo", line2("unknown flag: --foo")),
        ("COPY --chown a /a", line2("missing a value on flag: --chown")),
        (
            "COPY a",
            line2(
                "COPY requires at least two arguments, but only one was provided. Destination could not be determined",
            ),
        ),
        (
            "ADD []",
            line2(
                "ADD requires at least two arguments, but only one was provided. Destination could not be determined",
            ),
        ),
        ("COPY a <<E\nx\nE", line2("COPY cannot accept a heredoc as a destination")),
        ("COPY <<E /x\nno end", "unterminated heredoc".into()),
        ("RUN echo $(( 1 <<2 ))", "unterminated heredoc".into()),
        ("ENV A=1 B", "Syntax error - can't find = in \"B\". Must be of the form: name=value".into()),
        ("ENV A", "ENV must have two arguments".into()),
        ("ENV =x", line2("ENV names can not be blank")),
        ("ARG =x", line2("ARG names can not be blank")),
        ("ENV", line2("ENV requires at least one argument")),
        ("WORKDIR", line2("WORKDIR requires exactly one argument")),
        ("SHELL []", line2("SHELL requires at least one argument")),
        ("SHELL sh", line2("SHELL requires the arguments to be in JSON form")),
        (
            "ENTRYPOINT [\"a\", [\"b\"]]",
            "when using JSON array syntax, arrays must be comprised of strings only".into(),
        ),
        ("VOLUME [\"\"]", line2("VOLUME specified can not be an empty string")),
        ("HEALTHCHECK HTTP /x", line2("Unknown type \"HTTP\" in HEALTHCHECK (try CMD)")),
        ("HEALTHCHECK NONE please", line2("HEALTHCHECK NONE takes no arguments")),
        ("HEALTHCHECK CMD", line2("Missing command after HEALTHCHECK CMD")),
        ("HEALTHCHECK --interval=1us CMD x", line2("Interval \"interval\" cannot be less than 1ms")),
        ("HEALTHCHECK --retries=-1 CMD x", line2("--retries cannot be less than 0 (-1)")),
        ("ONBUILD ONBUILD RUN x", line2("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")),
        ("ONBUILD FROM x", line2("FROM isn't allowed as an ONBUILD trigger")),
        ("onbuild maintainer x", line2("MAINTAINER isn't allowed as an ONBUILD trigger")),
        ("RUN --security=lax x", line2("security \"lax\" is not valid")),
        ("RUN --network=x y", line2("invalid network mode \"x\"")),
        (
            "RUN --mount=from=$A,target=/x y",
            line2("'from' doesn't support variable expansion, define alias stage instead"),
        ),
        ("FROM a IS b", line2("FROM requires either one or three arguments")),
        (
            "FROM a AS 9lives",
            line2(
                "invalid name for build stage: \"9lives\", name can't start with a number or contain symbols",
            ),
        ),
    ] {
        assert_eq!(first_error(&format!("FROM scratch\n{body}\n")), text, "{body}");
    }
    for (source, text) in [
        ("", "the Dockerfile cannot be empty"),
        ("# one\n\n  # two\n", "file with no instructions"),
        ("ARG A=1\nARG B\n", "dockerfile contains no stages to build"),
        ("ARG A=1\nENV B=2\nFROM scratch\n", "no build stage in current context"),
    ] {
        assert_eq!(first_error(source), text);
    }
    let long = format!("FROM scratch\nRUN {}\n", "x".repeat(65536));
    assert_eq!(first_error(&long), "dockerfile line greater than max allowed size of 65535");
}

#[test]
fn flags_that_nobody_looks_at() {
    assert_eq!(instructions("ARG --x A").len(), 1);
    assert_eq!(instructions("STOPSIGNAL --x 9"), [Instruction::StopSignal("9".into())]);
    assert_eq!(instructions("HEALTHCHECK --x NONE").len(), 1);
}

#[test]
fn several_mistakes_at_once() {
    let source = "FROM scratch\nRUM <<EOF\nnot an instruction\nEOF\nCOPY a\nENV A=1\nVOLUMES /x\n";
    let errors = parse(source.as_bytes(), "Dockerfile").unwrap_err();
    let lines: Vec<_> = errors.iter().map(|error| error.span.first).collect();
    assert_eq!(lines, [2, 5, 7]);
    let errors = parse(b"RUN a\nRUN b\nFORM scratch\nRUN c\n", "Dockerfile").unwrap_err();
    assert_eq!(errors.len(), 2);
}

#[test]
fn no_nesting_exhausts_the_stack() {
    let chain = format!("FROM scratch\n{}RUN x\n", "ONBUILD \\\n".repeat(100_000));
    assert!(first_error(&chain).contains("Chaining ONBUILD"));
    let json = format!("FROM scratch\nCMD {}\n", "[".repeat(60_000));
    assert!(parse(json.as_bytes(), "Dockerfile").is_ok());
}

#[test]
fn triggers_point_at_from() {
    let span = Span { first: 7, last: 7 };
    let parsed = parse_triggers(&strings(&["RUN <<E\nx\nE", "env a=$B"]), '\\', span).unwrap();
    assert_eq!((parsed.len(), parsed[1].span), (2, span));
    let error = parse_triggers(&strings(&["FROB x"]), '\\', span).unwrap_err().remove(0);
    assert_eq!(
        (error.to_string().as_str(), error.span),
        ("unknown instruction: FROB (did you mean FROM?)", span)
    );
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse(&bytes, "Dockerfile");
    }

    #[test]
    fn no_soup_of_tokens_panics(tokens in prop::collection::vec(prop::sample::select(vec![
        "FROM", "RUN", "COPY", "ADD", "ENV", "LABEL", "ONBUILD", "HEALTHCHECK", "CMD", "ARG", "VOLUME", " ", " ", "\n", "\n", "\\\n",
        "<<EOF", "<<-'E F'", "EOF", "E F", "[\"a\"]", "[", "\"", "'", "--", "--mount=", "--from=x", "=", "a", "$", "${a", "}", "#", "\r",
        "# escape=`", "`", "\t", "é", "\u{feff}", "scratch", "AS", "NONE",
    ]), 0..60)) {
        let text: String = tokens.concat();
        if let Err(errors) = parse(text.as_bytes(), "Dockerfile") {
            prop_assert!(!errors.is_empty());
        }
        let _ = parse(format!("FROM scratch\n{text}").as_bytes(), "Dockerfile");
        let _ = parse_triggers(&[text], '`', Span::default());
    }
}
