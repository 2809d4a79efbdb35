//! The form of the case files; `cases/README` describes it.

/// One row: a build and what must come of it.
#[derive(Debug, Clone, Default)]
pub struct Case {
    /// Title and line in the file.
    pub title: String,
    /// Images to be built before: name and Dockerfile.
    pub bases: Vec<(String, String)>,
    /// What the context holds.
    pub context: Vec<String>,
    /// Arguments of the build.
    pub arguments: Vec<String>,
    /// The Dockerfile.
    pub dockerfile: String,
    /// What must come of it.
    pub expected: Vec<(String, Vec<String>)>,
}

impl Case {
    /// The lines of an expectation; `None` when the case has none of that kind.
    pub fn expects(&self, kind: &str) -> Option<&[String]> {
        self.expected.iter().find(|(name, _)| name == kind).map(|(_, lines)| lines.as_slice())
    }

    /// Whether a name of an image is used.
    pub fn uses(&self, image: &str) -> bool {
        self.dockerfile.contains(image) || self.bases.iter().any(|(_, file)| file.contains(image))
    }
}

/// The name of a section and its lines.
type Section<'a> = (String, Vec<&'a str>);

/// Every row of a file.
pub fn parse(text: &str) -> Vec<Case> {
    let mut blocks: Vec<(String, Vec<Section<'_>>)> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if let Some(title) = line.strip_prefix("== ") {
            blocks.push((format!("{title} (line {})", index + 1), Vec::new()));
        } else if let Some(section) = line.strip_prefix("-- ") {
            let (_, sections) = blocks.last_mut().expect("a section before the first case");
            sections.push((section.trim().to_owned(), Vec::new()));
        } else if !line.starts_with("##")
            && let Some((_, lines)) = blocks.last_mut().and_then(|(_, sections)| sections.last_mut())
        {
            lines.push(line);
        }
    }
    blocks.iter().flat_map(|(title, sections)| rows(title, sections)).collect()
}

fn rows(title: &str, sections: &[Section<'_>]) -> Vec<Case> {
    let each = sections.iter().find(|(name, _)| name == "each").map(|(_, lines)| lines);
    let Some(each) = each else { return vec![row(title, sections, &[])] };
    assert!(each.iter().any(|line| !line.trim().is_empty()), "{title}: no rows");
    let filled = each.iter().filter(|line| !line.trim().is_empty());
    filled.map(|line| row(title, sections, &line.split(" | ").collect::<Vec<_>>())).collect()
}

fn row(title: &str, sections: &[Section<'_>], columns: &[&str]) -> Case {
    let fill = |text: &str| {
        let mut text = text.to_owned();
        for (index, column) in columns.iter().enumerate() {
            text = text.replace(&format!("<{}>", index + 1), column);
        }
        text
    };
    let mut case = Case { title: fill(title), ..Case::default() };
    if let (false, Some(first)) = (columns.is_empty(), columns.first()) {
        case.title.push_str(&format!(" [{first}]"));
    }
    for (name, lines) in sections {
        let whole = || {
            let text = lines.join("\n");
            format!("{}\n", fill(text.trim_end_matches('\n')))
        };
        let listed = || -> Vec<String> {
            let filled = fill(&lines.join("\n"));
            filled.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect()
        };
        match name.as_str() {
            "each" => {}
            "Dockerfile" => case.dockerfile = whole(),
            "context" => case.context = listed(),
            "build" => case.arguments = listed(),
            base if base.starts_with("base ") => case.bases.push((base[5..].to_owned(), whole())),
            expected => {
                let known = ["config", "history", "tree", "fails", "says", "warns", "prints", "code"]
                    .contains(&expected);
                assert!(known, "{title}: unknown section {expected}");
                case.expected.push((expected.to_owned(), listed()));
            }
        }
    }
    case
}
