//! Tables as kubectl prints them: columns, no lines.
//!
//! Owns the look. Used by every command that prints one.

use comfy_table::{ContentArrangement, Table, presets};

/// Renders rows under a header, without trailing spaces.
pub(crate) fn render(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().copied());
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n")
}

/// A time span as people say it: `3s`, `4m10s`, `2h5m`, `3d`.
pub(crate) fn age(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m{}s", seconds / 60, seconds % 60),
        7_200..172_800 => format!("{}h{}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// What stands in an empty cell.
pub(crate) fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_without_trailing_spaces() {
        let text = render(&["NAME", "AGE"], vec![vec!["a".into(), "1s".into()], vec!["longer".into(), "".into()]]);
        assert_eq!(text, "NAME     AGE\na        1s\nlonger");
    }

    #[test]
    fn ages_read_well() {
        for (ms, expect) in
            [(900, "0s"), (119_000, "119s"), (250_000, "4m10s"), (7_500_000, "2h5m"), (300_000_000, "3d")]
        {
            assert_eq!(age(ms), expect);
        }
    }
}
