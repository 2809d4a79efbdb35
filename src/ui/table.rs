//! Tables as docker prints them: left-aligned columns of at least ten characters, three spaces between, no trailing
//! padding after the last column.

/// Fewest characters of a column, gutter included.
const MIN_WIDTH: usize = 10;
/// Spaces between columns.
const GUTTER: usize = 3;

/// Rows of cells on their way to a text. All cells are one text, as there may be thousands of rows.
#[derive(Debug, Clone, Default)]
pub struct Table {
    text: String,
    /// Where each cell ends in the text.
    ends: Vec<usize>,
    /// How many cells there are up to the end of each row.
    rows: Vec<usize>,
    /// The widest cell of each column, gutter included.
    widths: Vec<usize>,
}

impl Table {
    /// A table with these headers.
    #[must_use]
    pub fn new(headers: &[&str]) -> Self {
        let mut table = Self::default();
        table.row(headers);
        table
    }

    /// A table without a header line.
    #[must_use]
    pub fn bare() -> Self {
        Self::default()
    }

    /// Add a row.
    pub fn row<T: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = T>) -> &mut Self {
        for (column, cell) in cells.into_iter().enumerate() {
            self.cell(column, |text| text.push_str(cell.as_ref()));
        }
        self.rows.push(self.ends.len());
        self
    }

    /// Add a row of so many cells; `write` adds the one of a column to the text.
    pub fn written_row(&mut self, columns: usize, mut write: impl FnMut(usize, &mut String)) -> &mut Self {
        for column in 0..columns {
            self.cell(column, |text| write(column, text));
        }
        self.rows.push(self.ends.len());
        self
    }

    fn cell(&mut self, column: usize, write: impl FnOnce(&mut String)) {
        let start = self.text.len();
        write(&mut self.text);
        let cell = &self.text[start..];
        // A cell is one line: a line end in it would break the columns.
        if cell.bytes().fold(false, |found, byte| found | matches!(byte, b'\n' | b'\r' | b'\t')) {
            let line = cell.replace(['\n', '\r', '\t'], " ");
            self.text.replace_range(start.., &line);
        }
        let width = width_of(&self.text[start..]) + GUTTER;
        match self.widths.get_mut(column) {
            Some(widest) => *widest = width.max(*widest),
            None => self.widths.push(width.max(MIN_WIDTH)),
        }
        self.ends.push(self.text.len());
    }

    /// The table as text, each row with its line end.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::with_capacity(self.rows.len() * (self.widths.iter().sum::<usize>() + 1));
        let (mut cell_start, mut first) = (0, 0);
        for &row_end in &self.rows {
            for (index, &cell_end) in self.ends[first..row_end].iter().enumerate() {
                let cell = &self.text[cell_start..cell_end];
                text.push_str(cell);
                if first + index + 1 < row_end {
                    let padding = self.widths[index].saturating_sub(width_of(cell));
                    text.push_str(&BLANKS[..padding.min(BLANKS.len())]);
                    text.extend(std::iter::repeat_n(' ', padding.saturating_sub(BLANKS.len())));
                }
                cell_start = cell_end;
            }
            text.push('\n');
            first = row_end;
        }
        text
    }
}

const BLANKS: &str = "                                                                ";

/// Characters of a cell.
fn width_of(cell: &str) -> usize {
    if cell.is_ascii() { cell.len() } else { cell.chars().count() }
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
    fn cells_are_one_line_and_rows_may_differ_in_length() {
        let mut table = Table::bare();
        table
            .row(["a\nb\tc", "é"])
            .row(["x"])
            .written_row(3, |column, text| text.push_str(&"y".repeat(column)));
        assert_eq!(table.render(), "a b c     é\nx\n          y         yy\n");
    }

    #[test]
    fn an_empty_table_is_its_header() {
        assert_eq!(Table::new(&["A", "B"]).render(), "A         B\n");
        assert_eq!(Table::bare().render(), "");
    }
}
