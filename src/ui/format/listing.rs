//! Listings: rows of fields as docker's table, as JSON lines, or by a template for each row.

use serde_json::{Map, Value};

use super::{FormatError, Template};
use crate::ui::table::Table;

/// One field of a row that a listing can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// Its name in templates and JSON.
    pub field: &'static str,
    /// Its header in tables.
    pub header: &'static str,
}

impl Column {
    /// A field and its header.
    #[must_use]
    pub const fn new(field: &'static str, header: &'static str) -> Self {
        Self { field, header }
    }
}

/// How to print rows.
#[derive(Debug)]
pub struct Listing {
    columns: Vec<Column>,
    style: Style,
}

#[derive(Debug)]
enum Style {
    /// The default columns.
    Table { shown: Vec<&'static str> },
    /// `table TEMPLATE`
    TemplateTable(Template),
    /// A template for each row.
    Rows(Template),
    /// A template that ranges over the rows by itself.
    Whole(Template),
    /// One object a line.
    Json,
}

impl Listing {
    /// Read a `--format`. `columns` names every field that has a header; `shown` are the fields of the default table,
    /// which is what an absent or empty format and the word `table` mean.
    ///
    /// # Errors
    /// [`FormatError::Parse`].
    pub fn parse(
        format: Option<&str>,
        columns: &[Column],
        shown: &[&'static str],
    ) -> Result<Self, FormatError> {
        let format = format.map(str::trim_start).unwrap_or_default();
        let style = if format.trim_end().is_empty() || format.trim_end() == "table" {
            Style::Table { shown: shown.to_vec() }
        } else if format.trim_end() == "json" {
            Style::Json
        } else if let Some(template) =
            format.strip_prefix("table ").or_else(|| format.strip_prefix("table\t"))
        {
            Style::TemplateTable(Template::parse(template)?)
        } else {
            let template = Template::parse(format)?;
            if ranges_over_all(format) { Style::Whole(template) } else { Style::Rows(template) }
        };
        Ok(Self { columns: columns.to_vec(), style })
    }

    /// Print rows, each an object of at least the named columns. The text brings its line ends.
    ///
    /// # Errors
    /// When the template does not fit the rows.
    pub fn render(&self, rows: &[Value]) -> Result<String, FormatError> {
        match &self.style {
            Style::Table { .. } => Ok(self.table(rows, |row, field, text| write_cell(&row[field], text))),
            Style::TemplateTable(template) => self.template_table(rows, template),
            Style::Rows(template) => {
                let mut text = String::new();
                for row in rows {
                    text.push_str(&template.render(row)?);
                    text.push('\n');
                }
                Ok(text)
            }
            Style::Whole(template) => {
                let text = template.render(&Value::Array(rows.to_vec()))?;
                Ok(if text.is_empty() || text.ends_with('\n') { text } else { text + "\n" })
            }
            Style::Json => Ok(rows.iter().map(|row| format!("{row}\n")).collect()),
        }
    }

    /// The fields of the default table, when that is what is asked for: nothing else of a row is needed then.
    #[must_use]
    pub fn default_columns(&self) -> Option<&[&'static str]> {
        match &self.style {
            Style::Table { shown } => Some(shown),
            _ => None,
        }
    }

    /// The default table of rows; `write` adds a field of a row to a text.
    #[must_use]
    pub fn table<R>(&self, rows: &[R], write: impl Fn(&R, &'static str, &mut String)) -> String {
        let shown = self.default_columns().unwrap_or_default();
        let header = |field: &str| self.columns.iter().find(|c| c.field == field).map_or("", |c| c.header);
        let mut table = Table::bare();
        table.row(shown.iter().map(|field| header(field)));
        for row in rows {
            table.written_row(shown.len(), |index, cell| write(row, shown[index], cell));
        }
        table.render()
    }

    fn template_table(&self, rows: &[Value], template: &Template) -> Result<String, FormatError> {
        let mut headers = Map::new();
        for column in &self.columns {
            headers.insert(column.field.to_owned(), column.header.into());
        }
        let mut table = Table::bare();
        // A header line is the template over the headers. A template too clever for that has none.
        if let Ok(line) = template.render(&Value::Object(headers)) {
            table.row(line.split('\t'));
        }
        for row in rows {
            table.row(template.render(row)?.split('\t'));
        }
        Ok(table.render())
    }
}

fn write_cell(value: &Value, cell: &mut String) {
    match value {
        Value::String(text) => cell.push_str(text),
        Value::Null => {}
        other => cell.push_str(&other.to_string()),
    }
}

/// podman's users write `{{range .}}…{{end}}` where docker's write what is between.
fn ranges_over_all(format: &str) -> bool {
    let action = format.trim_start().trim_start_matches("{{").trim_start_matches('-').trim_start();
    action.strip_prefix("range").is_some_and(|rest| {
        let rest = rest.trim_start();
        rest.strip_prefix('.').is_some_and(|after| after.trim_start().starts_with(['}', '-']))
    })
}
