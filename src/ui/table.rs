//! Tables as docker prints them: left-aligned columns of at least ten characters, three spaces between, no trailing
//! padding after the last column.

/// Fewest characters of a column, gutter included.
const MIN_WIDTH: usize = 10;
/// Spaces between columns.
const GUTTER: usize = 3;

/// Rows of cells on their way to a text.
#[derive(Debug, Clone, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headers.
    #[must_use]
    pub fn new(headers: &[&str]) -> Self {
        Self { rows: vec![headers.iter().map(|&header| header.to_owned()).collect()] }
    }

    /// A table without a header line.
    #[must_use]
    pub fn bare() -> Self {
        Self::default()
    }

    /// Add a row.
    pub fn row<T: Into<String>>(&mut self, cells: impl IntoIterator<Item = T>) -> &mut Self {
        self.rows.push(cells.into_iter().map(|cell| one_line(cell.into())).collect());
        self
    }

    /// The table as text, each row with its line end.
    #[must_use]
    pub fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let mut widths = vec![MIN_WIDTH; columns];
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(width_of(cell) + GUTTER);
            }
        }
        let mut text = String::new();
        for row in &self.rows {
            for (index, cell) in row.iter().enumerate() {
                text.push_str(cell);
                if index + 1 < row.len() {
                    let padding = widths.get(index).copied().unwrap_or(0).saturating_sub(width_of(cell));
                    text.push_str(&BLANKS[..padding.min(BLANKS.len())]);
                    text.extend(std::iter::repeat_n(' ', padding.saturating_sub(BLANKS.len())));
                }
            }
            text.push('\n');
        }
        text
    }
}

const BLANKS: &str = "                                                                ";

/// Characters of a cell.
fn width_of(cell: &str) -> usize {
    if cell.is_ascii() { cell.len() } else { cell.chars().count() }
}

/// A cell is one line: a line end in it would break the columns.
fn one_line(cell: String) -> String {
    if cell.contains(['\n', '\r', '\t']) { cell.replace(['\n', '\r', '\t'], " ") } else { cell }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_docker_pads_them() {
        let mut table = Table::new(&["REPOSITORY", "TAG", "IMAGE ID"]);
        table.row(["alpine", "3.20", "abc"]).row(["a-much-longer-name", "latest", ""]);
        assert_eq!(
            table.render(),
            "REPOSITORY           TAG       IMAGE ID\n\
             alpine               3.20      abc\n\
             a-much-longer-name   latest    \n"
        );
    }

    #[test]
    fn an_empty_table_is_its_header() {
        assert_eq!(Table::new(&["A", "B"]).render(), "A         B\n");
        assert_eq!(Table::bare().render(), "");
    }
}
