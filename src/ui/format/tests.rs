use serde_json::json;

use super::*;

fn render(template: &str, value: &Value) -> Result<String, FormatError> {
    Template::parse(template)?.render(value)
}

fn image() -> Value {
    json!({
        "Id": "sha256:ab",
        "RepoTags": ["a:1", "b:2"],
        "Config": {
            "Env": ["PATH=/bin", "A=<b>"],
            "Cmd": ["sh", "-c"],
            "Labels": {"z": "26", "a": "1"},
            "ExposedPorts": {"80/tcp": {}},
            "User": "",
        },
        "State": {"Running": true, "ExitCode": 0, "Status": "running"},
        "NetworkSettings": {"Networks": {"host": {"IPAddress": "10.0.0.1"}}},
        "RootFS": {"Layers": ["x", "y"]},
        "Size": 18_446_744_073_709_551_615_u64,
        "Ratio": 0.5,
    })
}

#[test]
fn templates_of_scripts_work() {
    for (template, expected) in [
        ("{{.Id}}", "sha256:ab"),
        ("{{.State.Running}} {{.State.ExitCode}}", "true 0"),
        ("{{index .RepoTags 0}}", "a:1"),
        ("{{range .Config.Env}}{{println .}}{{end}}", "PATH=/bin\nA=<b>\n"),
        ("{{json .Config.Labels}}", r#"{"z":"26","a":"1"}"#),
        ("{{json .Config.Env}}", r#"["PATH=/bin","A=<b>"]"#),
        ("{{index .Config.Labels \"z\"}}", "26"),
        ("{{join .Config.Cmd \" \"}}", "sh -c"),
        ("{{len .RootFS.Layers}}", "2"),
        ("{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", "10.0.0.1"),
        ("{{if .State.Health}}{{.State.Health.Status}}{{end}}", ""),
        ("{{.Config.Labels.missing}}", "<no value>"),
        ("{{.Config.Labels}}", "map[a:1 z:26]"),
        ("{{.Config.Cmd}}", "[sh -c]"),
        ("{{printf \"%.4s|%q\" .Id .State.Status}}", "sha2|\"running\""),
        ("{{upper .State.Status}} {{title \"a bc\"}} {{lower \"AB\"}}", "RUNNING A Bc ab"),
        ("{{.Id | truncate 0}}", ""),
        ("{{pad .Id 1 2}}|{{pad .Config.User 1 2}}", " sha256:ab  |"),
        ("{{range split .Id \":\"}}<{{.}}>{{end}}", "<sha256><ab>"),
        ("{{.Size}} {{.Ratio}}", "18446744073709551615 0.5"),
        ("{{.Id}}\\t{{.State.Status}}\\n", "sha256:ab\trunning\n"),
        ("{{if and (eq .State.Status \"running\") (not .Config.User)}}yes{{end}}", "yes"),
        ("{{with $x := .State}}{{$x.ExitCode}}{{end}}", "0"),
    ] {
        match template {
            // Go passes a piped value last: `truncate` takes the text first, so this one is an error there and here.
            "{{.Id | truncate 0}}" => assert!(render(template, &image()).is_err()),
            _ => assert_eq!(render(template, &image()).unwrap(), expected, "{template}"),
        }
    }
}

#[test]
fn json_keeps_the_order_of_keys() {
    let text = render("json", &image()).unwrap();
    assert_eq!(text, image().to_string());
    assert_eq!(render("{{json .}}", &json!(["a\u{1b}", null, {}])).unwrap(), r#"["a\u001b",null,{}]"#);
}

#[test]
fn null_is_an_empty_list_or_map_as_in_go() {
    let value = json!({"Config": {"Entrypoint": null, "Volumes": null, "Cmd": [], "Pid": null}});
    for (template, expected) in [
        ("{{.Config.Entrypoint}}", "[]"),
        ("{{.Config.Shell}}", "[]"),
        ("{{.Config.Volumes}}", "map[]"),
        ("{{.Config.Pid}}", "<no value>"),
        ("{{len .Config.Entrypoint}}", "0"),
        ("{{if .Config.Entrypoint}}yes{{else}}no{{end}}", "no"),
        ("{{join .Config.Entrypoint \" \"}}{{range .Config.Volumes}}x{{end}}", ""),
        ("{{json .Config.Entrypoint}} {{json .Config.Cmd}}", "null []"),
        ("{{json .Config}}", r#"{"Entrypoint":null,"Volumes":null,"Cmd":[],"Pid":null}"#),
    ] {
        assert_eq!(render(template, &value).unwrap(), expected, "{template}");
    }
}

#[test]
fn a_label_is_a_method_of_rows() {
    let row = json!({"Labels": "a=1,b=x=y"});
    assert_eq!(render("{{.Label \"b\"}}|{{ .Label \"c\" }}", &row).unwrap(), "x=y|");
}

#[test]
fn an_unknown_field_is_an_error_that_names_it() {
    let error = render("{{.Foo.Bar}}", &json!({"A": 1, "B": 2})).unwrap_err();
    assert_eq!(
        error.to_string(),
        "template `{{.Foo.Bar}}` asks for `Foo`, which is not there; there are: A, B"
    );
    assert!(render("{{.Config.Nope}}", &image()).is_err());
}

#[test]
fn a_broken_template_is_an_error_with_its_place() {
    for template in ["{{.Id", "{{if}}", "{{.Id | }}"] {
        assert!(matches!(Template::parse(template), Err(FormatError::Parse { .. })), "{template}");
    }
}

const COLUMNS: [Column; 3] =
    [Column::new("ID", "IMAGE ID"), Column::new("Repository", "REPOSITORY"), Column::new("Tag", "TAG")];

fn list(format: Option<&str>) -> String {
    let rows = [
        json!({"ID": "abc", "Repository": "alpine", "Tag": "3.20"}),
        json!({"ID": "def", "Repository": "debian", "Tag": "12"}),
    ];
    Listing::parse(format, &COLUMNS, &["Repository", "Tag", "ID"]).unwrap().render(&rows).unwrap()
}

#[test]
fn listings_print_as_docker() {
    let table = "REPOSITORY   TAG       IMAGE ID\nalpine       3.20      abc\ndebian       12        def\n";
    assert_eq!(list(None), table);
    assert_eq!(list(Some("")), table);
    assert_eq!(list(Some("table")), table);
    assert_eq!(list(Some("{{.Repository}}:{{.Tag}}")), "alpine:3.20\ndebian:12\n");
    assert_eq!(list(Some("{{range .}}{{.ID}} {{end}}")), "abc def \n");
    assert_eq!(list(Some("table {{.ID}}\\t{{.Tag}}")), "IMAGE ID   TAG\nabc        3.20\ndef        12\n");
    assert_eq!(
        list(Some("json")),
        "{\"ID\":\"abc\",\"Repository\":\"alpine\",\"Tag\":\"3.20\"}\n\
         {\"ID\":\"def\",\"Repository\":\"debian\",\"Tag\":\"12\"}\n"
    );
}

#[test]
fn an_empty_listing_is_its_header() {
    let listing = Listing::parse(None, &COLUMNS, &["Tag", "ID"]).unwrap();
    assert_eq!(listing.render(&[]).unwrap(), "TAG       IMAGE ID\n");
    assert_eq!(Listing::parse(Some("json"), &COLUMNS, &[]).unwrap().render(&[]).unwrap(), "");
}
