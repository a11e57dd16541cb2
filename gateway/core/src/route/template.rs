//! Path templates (`/t/{x}/{y=**}`) as regular expressions.

use crate::config::{Regex, TemplatePart, UriTemplate};

/// One path character: what RFC 3986 allows in a segment, escapes included.
const SEGMENT: &str = r"[a-zA-Z0-9\-._~%!$&'()+,;:@=]";

/// Compiles a template.
///
/// # Errors
/// When it is not one; says so in lower case.
pub(crate) fn parse(text: &str) -> Result<UriTemplate, String> {
    let rest = text.strip_prefix('/').ok_or("a path template begins with a slash")?;
    let mut variables: Vec<Box<str>> = Vec::new();
    let mut pattern = String::new();
    for segment in segments(rest)? {
        pattern.push('/');
        match segment.strip_prefix('{').and_then(|inner| inner.strip_suffix('}')) {
            Some(inner) => {
                let (name, inner) = inner.split_once('=').unwrap_or((inner, "*"));
                let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
                if !plain || variables.iter().any(|v| &**v == name) {
                    return Err(format!("{name:?} is not a variable's name or is there twice"));
                }
                variables.push(name.into());
                let parts = inner.split('/').map(one).collect::<Result<Vec<_>, _>>()?;
                pattern.push_str(&format!("({})", parts.join("/")));
            }
            None => pattern.push_str(&one(segment)?),
        }
    }
    Ok(UriTemplate { text: text.into(), pattern: Regex::parse(&pattern)?, variables: variables.into() })
}

/// Splits at slashes outside of braces.
fn segments(text: &str) -> Result<Vec<&str>, String> {
    let mut out = Vec::new();
    let (mut depth, mut start) = (0u32, 0);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth = depth.checked_sub(1).ok_or("a brace is closed that was not opened")?,
            b'/' if depth == 0 => {
                out.push(text.get(start..at).unwrap_or_default());
                start = at + 1;
            }
            _ => {}
        }
        if depth > 1 {
            return Err("braces within braces".to_owned());
        }
    }
    if depth != 0 {
        return Err("a brace is not closed".to_owned());
    }
    out.push(text.get(start..).unwrap_or_default());
    Ok(out)
}

fn one(segment: &str) -> Result<String, String> {
    Ok(match segment {
        "*" => format!("{SEGMENT}+"),
        "**" => format!("(?:{SEGMENT}|/)*"),
        literal if literal.contains(['{', '}', '*']) => return Err(format!("{literal:?} is not a segment")),
        literal => regex::escape(literal),
    })
}

/// Compiles the path of a rewrite by template (`/new/{y}/{x}`).
///
/// # Errors
/// When it names a variable that the template has not.
pub(crate) fn parse_rewrite(text: &str, template: &UriTemplate) -> Result<Box<[TemplatePart]>, String> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((literal, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}').ok_or("a brace is not closed")?;
        let at = template.variables.iter().position(|v| &**v == name).ok_or_else(|| format!("no variable {name:?}"))?;
        if !literal.is_empty() {
            parts.push(TemplatePart::Literal(literal.into()));
        }
        parts.push(TemplatePart::Variable(u16::try_from(at).map_err(|_| "too many variables")?));
        rest = after;
    }
    if !rest.is_empty() {
        parts.push(TemplatePart::Literal(rest.into()));
    }
    Ok(parts.into())
}
