//! Owns the split of a file into documents before anything is parsed, so that a syntax error in one document leaves its
//! neighbours alone. Never looks inside a document.

/// A part of a file and the number of lines before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part<'t> {
    pub(crate) text: &'t str,
    pub(crate) lines_before: u32,
}

/// The documents of a file, without those that hold only comments and directives. A part keeps its own `---` line,
/// because content may follow on it.
pub(crate) fn split(text: &str) -> Vec<Part<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut parts = Vec::new();
    let (mut begin, mut begin_line, mut at) = (0, 0, 0);
    for (line_number, line) in (0u32..).zip(text.split_inclusive('\n')) {
        if is_boundary(line) && at > begin {
            parts.push(Part { text: &text[begin..at], lines_before: begin_line });
            (begin, begin_line) = (at, line_number);
        }
        at += line.len();
    }
    parts.push(Part { text: &text[begin..], lines_before: begin_line });
    parts.retain(|part| part.text.lines().any(has_content));
    parts
}

/// `---` at the begin of a line, alone or followed by white space. No scalar of any style can hold such a line.
fn is_boundary(line: &str) -> bool {
    line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

fn has_content(line: &str) -> bool {
    let line = if is_boundary(line) { &line[3..] } else { line };
    let line = line.trim();
    !(line.is_empty()
        || line.starts_with('#')
        || line.starts_with("%YAML")
        || line.starts_with("%TAG")
        || line == "...")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_know_their_lines() {
        let parts = split("# head\n---\na: 1\n---\n# only a comment\n--- # c\nb: 2\n---");
        let found: Vec<_> = parts.iter().map(|p| (p.lines_before, p.text)).collect();
        assert_eq!(found, [(1, "---\na: 1\n"), (5, "--- # c\nb: 2\n")]);
    }

    #[test]
    fn carriage_returns_and_marks_do_not_hide_a_boundary() {
        let parts = split("\u{feff}a: 1\r\n---\r\nb: 2\r\n");
        assert_eq!(parts.len(), 2);
        assert_eq!(parts[1].lines_before, 1);
    }

    #[test]
    fn a_longer_dash_line_is_no_boundary() {
        assert_eq!(split("a: |\n  ---\n  x\n----: b\n").len(), 1);
    }

    #[test]
    fn an_empty_file_has_no_documents() {
        assert!(split("").is_empty());
        assert!(split("---\n---\n# x\n%YAML 1.1\n---\n").is_empty());
    }
}
