//! Header changes.

use super::{
    Refusal,
    any::{At, Decoded, bool_or, header_name, header_value},
};
use crate::{
    config::{Action, HeaderChange, HeaderChanges, HeaderValueFormat},
    format::Format,
};
use tombolo_controlplane_api::xds::envoy::config::core::v3::{self as core, header_value_option::HeaderAppendAction};

/// The lists `NAME_to_add` and `NAME_to_remove` of a message.
pub(super) fn changes(
    add: Vec<core::HeaderValueOption>,
    remove: &[String],
    add_field: &str,
    remove_field: &str,
) -> Decoded<HeaderChanges> {
    let set =
        add.into_iter().enumerate().map(|(at, value)| change(value).nth(add_field, at)).collect::<Decoded<_>>()?;
    let removed = |(at, name): (usize, &String)| removable(name).nth(remove_field, at);
    Ok(HeaderChanges::new(remove.iter().enumerate().map(removed).collect::<Decoded<_>>()?, set))
}

fn removable(name: &str) -> Result<http::HeaderName, String> {
    if name.eq_ignore_ascii_case("host") || name.starts_with(':') {
        return Err(format!("{name:?} may not be removed"));
    }
    header_name(name)
}

pub(super) fn change(value: core::HeaderValueOption) -> Decoded<HeaderChange> {
    let core::HeaderValueOption { header, append, append_action, keep_empty_value } = value;
    let core::HeaderValue { key, value, raw_value } = header.ok_or_else(|| Refusal::new("header", "missing"))?;
    let value = if raw_value.is_empty() {
        value
    } else {
        String::from_utf8(raw_value).map_err(|_| Refusal::new("header.raw_value", "not text"))?
    };
    let action = match (append, HeaderAppendAction::try_from(append_action)) {
        // The older switch wins when it is there.
        (Some(append), _) => {
            if bool_or(Some(append), true) {
                Action::Append
            } else {
                Action::Overwrite
            }
        }
        (None, Ok(HeaderAppendAction::AppendIfExistsOrAdd)) => Action::Append,
        (None, Ok(HeaderAppendAction::AddIfAbsent)) => Action::AddIfAbsent,
        (None, Ok(HeaderAppendAction::OverwriteIfExistsOrAdd)) => Action::Overwrite,
        (None, Ok(HeaderAppendAction::OverwriteIfExists)) => Action::OverwriteIfExists,
        (None, Err(_)) => return Err(Refusal::new("append_action", format!("{append_action} is not known"))),
    };
    let name = target(&key, action).at("header.key")?;
    let format = Format::parse(&value).at("header.value")?;
    let value = match format.fixed() {
        Some(text) => HeaderValueFormat::Fixed(header_value(text).at("header.value")?),
        None => HeaderValueFormat::Format(format),
    };
    Ok(HeaderChange { name, value, action, keep_empty: keep_empty_value })
}

/// The host may be replaced, never doubled; other parts of the request line are not headers.
fn target(key: &str, action: Action) -> Result<http::HeaderName, String> {
    let host = key.eq_ignore_ascii_case("host") || key.eq_ignore_ascii_case(":authority");
    match (host, action) {
        (true, Action::Overwrite | Action::OverwriteIfExists) => Ok(http::header::HOST),
        (true, Action::Append | Action::AddIfAbsent) => Err(format!("{key:?} may not be added")),
        (false, _) if key.starts_with(':') => Err(format!("{key:?} may not be changed")),
        (false, _) => header_name(key),
    }
}
