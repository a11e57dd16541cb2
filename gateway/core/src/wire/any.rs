//! Messages inside messages: typed configurations, durations, small wrappers.

use super::Refusal;
use crate::config::{FetchTimeout, Metadata, Value};
use http::{HeaderName, HeaderValue};
use prost::{Message, Name};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tombolo_controlplane_api::xds::{
    envoy::config::core::v3::{self as core, data_source::Specifier},
    google::protobuf::{self as pb, value::Kind},
};

/// Result of decoding a part.
pub(crate) type Decoded<T> = Result<T, Refusal>;

/// Adds the place to a refusal.
pub(crate) trait At<T> {
    /// Adds the name of the field.
    fn at(self, field: &str) -> Decoded<T>;
    /// Adds the name of the field and the place in its list.
    fn nth(self, field: &str, index: usize) -> Decoded<T>;
}

impl<T> At<T> for Decoded<T> {
    fn at(self, field: &str) -> Self {
        self.map_err(|refusal| refusal.inside(field))
    }

    fn nth(self, field: &str, index: usize) -> Self {
        self.map_err(|refusal| refusal.inside(&format!("{field}[{index}]")))
    }
}

impl<T> At<T> for Result<T, String> {
    fn at(self, field: &str) -> Decoded<T> {
        self.map_err(|reason| Refusal::new(field, reason))
    }

    fn nth(self, field: &str, index: usize) -> Decoded<T> {
        self.map_err(|reason| Refusal::new(format!("{field}[{index}]"), reason))
    }
}

/// Whether a field was set, for fields that are refused when they are.
pub(crate) trait IsSet {
    fn is_set(&self) -> bool;
}

impl<T> IsSet for Option<T> {
    fn is_set(&self) -> bool {
        self.is_some()
    }
}

impl<T> IsSet for Vec<T> {
    fn is_set(&self) -> bool {
        !self.is_empty()
    }
}

impl<K, V> IsSet for std::collections::HashMap<K, V> {
    fn is_set(&self) -> bool {
        !self.is_empty()
    }
}

impl IsSet for String {
    fn is_set(&self) -> bool {
        !self.is_empty()
    }
}

impl IsSet for bool {
    fn is_set(&self) -> bool {
        *self
    }
}

impl IsSet for i32 {
    fn is_set(&self) -> bool {
        *self != 0
    }
}

impl IsSet for u32 {
    fn is_set(&self) -> bool {
        *self != 0
    }
}

/// Refuses, by name, fields that are set although nobody reads them.
macro_rules! refuse {
    ($($field:ident),* $(,)?) => {
        $(if $crate::wire::any::IsSet::is_set(&$field) {
            return Err($crate::wire::Refusal::unsupported(stringify!($field).trim_start_matches("r#")));
        })*
    };
}
pub(crate) use refuse;

/// Decodes the message in an `Any` of the right type.
pub(crate) fn unpack<M: Message + Name + Default>(any: &pb::Any) -> Decoded<M> {
    if type_name(any) != M::full_name() {
        return Err(Refusal::new("", format!("{} where {} is expected", type_name(any), M::full_name())));
    }
    decode(&any.value)
}

/// Decodes a message.
pub(crate) fn decode<M: Message + Default>(bytes: &[u8]) -> Decoded<M> {
    M::decode(bytes).map_err(|error| Refusal::new("", format!("not a valid message: {error}")))
}

/// The type of an `Any` without its host part.
pub(crate) fn type_name(any: &pb::Any) -> &str {
    any.type_url.rsplit_once('/').map_or(any.type_url.as_str(), |(_, name)| name)
}

/// A text that must not be empty.
pub(crate) fn filled(text: String) -> Result<String, String> {
    if text.is_empty() { Err("empty".to_owned()) } else { Ok(text) }
}

/// A list that must not be empty.
pub(crate) fn some<T>(list: &[T]) -> Result<(), String> {
    if list.is_empty() { Err("empty".to_owned()) } else { Ok(()) }
}

/// A text that may go into a header or a request line.
pub(crate) fn one_line(text: &str) -> Result<(), String> {
    match text.bytes().find(|byte| matches!(byte, 0 | b'\r' | b'\n')) {
        Some(byte) => Err(format!("has the control character {byte:#04x}")),
        None => Ok(()),
    }
}

/// The value of an enum; one that nobody knows is refused, not taken for the default.
pub(crate) fn known<E: TryFrom<i32>>(value: i32) -> Result<E, String> {
    E::try_from(value).map_err(|_| format!("{value} is not known"))
}

/// A list in which nothing stands twice.
pub(crate) fn distinct<T: PartialEq>(list: &[T], field: &str) -> Decoded<()> {
    match list.iter().enumerate().find(|(at, one)| list[..*at].contains(one)) {
        Some((at, _)) => Err(Refusal::new(format!("{field}[{at}]"), "is there twice")),
        None => Ok(()),
    }
}

/// A wrapped number that may be absent, within bounds.
pub(crate) fn within(
    value: Option<pb::UInt32Value>,
    bounds: std::ops::RangeInclusive<u32>,
    field: &str,
) -> Decoded<Option<u32>> {
    match value.map(|value| value.value) {
        Some(number) if !bounds.contains(&number) => {
            Err(Refusal::new(field, format!("{number} is not from {} to {}", bounds.start(), bounds.end())))
        }
        fine => Ok(fine),
    }
}

/// A duration of more than no time.
pub(crate) fn some_time(value: &pb::Duration) -> Result<Duration, String> {
    match duration(value)? {
        Duration::ZERO => Err("no time".to_owned()),
        time => Ok(time),
    }
}

/// As many seconds as 64 bits of nanoseconds hold: Envoy counts in these.
const LONGEST: u64 = 9_223_372_036;

/// A duration; negative ones and those out of range are refused.
pub(crate) fn duration(duration: &pb::Duration) -> Result<Duration, String> {
    match (u64::try_from(duration.seconds), u32::try_from(duration.nanos)) {
        (Ok(seconds), Ok(nanos)) if seconds <= LONGEST && nanos < 1_000_000_000 => Ok(Duration::new(seconds, nanos)),
        _ => Err("not a valid duration".to_owned()),
    }
}

/// A duration that may be absent.
pub(crate) fn opt_duration(value: Option<&pb::Duration>, field: &str) -> Decoded<Option<Duration>> {
    value.map(duration).transpose().at(field)
}

/// A timeout where absence means `default` and zero means none.
pub(crate) fn timeout(
    value: Option<&pb::Duration>,
    default: Option<Duration>,
    field: &str,
) -> Decoded<Option<Duration>> {
    Ok(match opt_duration(value, field)? {
        None => default,
        Some(Duration::ZERO) => None,
        some => some,
    })
}

/// A wrapped number that may be absent.
pub(crate) fn u32_or(value: Option<pb::UInt32Value>, default: u32) -> u32 {
    value.map_or(default, |value| value.value)
}

/// A wrapped truth value that may be absent.
pub(crate) fn bool_or(value: Option<pb::BoolValue>, default: bool) -> bool {
    value.map_or(default, |value| value.value)
}

/// A port.
pub(crate) fn port(value: u32) -> Result<u16, String> {
    u16::try_from(value).map_err(|_| format!("{value} is not a port"))
}

/// A header's name.
pub(crate) fn header_name(text: &str) -> Result<HeaderName, String> {
    HeaderName::from_bytes(text.to_ascii_lowercase().as_bytes()).map_err(|_| format!("{text:?} is not a header name"))
}

/// A header's value.
pub(crate) fn header_value(text: &str) -> Result<HeaderValue, String> {
    HeaderValue::from_bytes(text.as_bytes()).map_err(|_| format!("{text:?} is not a header value"))
}

/// Data written in the message. Files and environment variables are refused: what a control plane says must not depend on what
/// lies on the machine, nor read it.
pub(crate) fn data(source: &core::DataSource) -> Decoded<Vec<u8>> {
    let core::DataSource { watched_directory, specifier } = source;
    if watched_directory.is_some() {
        return Err(Refusal::unsupported("watched_directory"));
    }
    match specifier {
        Some(Specifier::InlineBytes(bytes)) => Ok(bytes.clone()),
        Some(Specifier::InlineString(text)) => Ok(text.clone().into_bytes()),
        Some(Specifier::Filename(_)) => Err(Refusal::unsupported("filename")),
        Some(Specifier::EnvironmentVariable(_)) => Err(Refusal::unsupported("environment_variable")),
        None => Err(Refusal::new("", "no data")),
    }
}

/// Free-form values. Deeper than 32 levels is refused.
pub(crate) fn value(value: &pb::Value, depth: u32) -> Result<Value, String> {
    if depth > 32 {
        return Err("nested too deep".to_owned());
    }
    Ok(match &value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::NumberValue(number)) => Value::Number(*number),
        Some(Kind::StringValue(text)) => Value::Text(text.as_str().into()),
        Some(Kind::BoolValue(truth)) => Value::Bool(*truth),
        Some(Kind::StructValue(inner)) => structure(inner, depth + 1)?,
        Some(Kind::ListValue(list)) => {
            Value::List(list.values.iter().map(|v| self::value(v, depth + 1)).collect::<Result<Vec<_>, _>>()?.into())
        }
    })
}

/// A structure as a map.
pub(crate) fn structure(inner: &pb::Struct, depth: u32) -> Result<Value, String> {
    let members = inner.fields.iter().map(|(key, v)| Ok((Arc::from(key.as_str()), value(v, depth)?)));
    Ok(Value::Map(Arc::new(members.collect::<Result<BTreeMap<_, _>, String>>()?)))
}

/// Metadata. Typed metadata is kept by nobody here and carries no behaviour in Envoy's own filters, so it is left out.
pub(crate) fn metadata(metadata: Option<&core::Metadata>) -> Result<Metadata, String> {
    let Some(metadata) = metadata.filter(|m| !m.filter_metadata.is_empty()) else { return Ok(Metadata::default()) };
    let namespaces = metadata.filter_metadata.iter().map(|(name, s)| Ok((Arc::from(name.as_str()), structure(s, 0)?)));
    Ok(Metadata(Some(Arc::new(namespaces.collect::<Result<BTreeMap<_, _>, String>>()?))))
}

/// Headers' names; empty ones, of which there is none, are left out as in Envoy.
pub(crate) fn header_names(list: &[String], field: &str) -> Decoded<Box<[HeaderName]>> {
    let named = list.iter().enumerate().filter(|(_, name)| !name.is_empty());
    named.map(|(at, name)| header_name(name).nth(field, at)).collect()
}

/// Strings in a list.
pub(crate) fn texts(list: &[String]) -> Box<[Arc<str>]> {
    list.iter().map(|text| Arc::from(text.as_str())).collect()
}

/// The cluster by which bootstraps call the control plane that everything else comes from.
const CONTROL_PLANE: &str = "xds-grpc";

/// Resources come over the aggregated stream only; says how long they may take. A source of its own is taken when it names
/// the same control plane. Files are refused: what a control plane says must not read what lies on the machine.
pub(crate) fn over_ads(source: &core::ConfigSource) -> Decoded<FetchTimeout> {
    use core::config_source::ConfigSourceSpecifier as S;
    match &source.config_source_specifier {
        Some(S::Ads(_) | S::Self_(_)) => {}
        Some(S::Path(_)) => return Err(Refusal::unsupported("path")),
        Some(S::PathConfigSource(_)) => return Err(Refusal::unsupported("path_config_source")),
        Some(S::ApiConfigSource(api)) => same_control_plane(api).at("api_config_source")?,
        None => return Err(Refusal::new("config_source_specifier", "missing")),
    }
    fetch_timeout(source)
}

/// How long a resource may take. Zero: for ever.
pub(crate) fn fetch_timeout(source: &core::ConfigSource) -> Decoded<FetchTimeout> {
    let default = FetchTimeout::default().0;
    timeout(source.initial_fetch_timeout.as_ref(), default, "initial_fetch_timeout").map(FetchTimeout)
}

fn same_control_plane(api: &core::ApiConfigSource) -> Decoded<()> {
    use core::{api_config_source::ApiType, grpc_service::TargetSpecifier};
    match api.api_type() {
        ApiType::AggregatedGrpc | ApiType::AggregatedDeltaGrpc => return Ok(()),
        ApiType::Grpc | ApiType::DeltaGrpc => {}
        ApiType::Rest | ApiType::DeprecatedAndUnavailableDoNotUse => return Err(Refusal::unsupported("api_type")),
    }
    match api.grpc_services.first().and_then(|service| service.target_specifier.as_ref()) {
        Some(TargetSpecifier::EnvoyGrpc(grpc)) if grpc.cluster_name == CONTROL_PLANE => Ok(()),
        Some(TargetSpecifier::EnvoyGrpc(grpc)) => {
            Err(Refusal::unsupported(format!("grpc_services[0].envoy_grpc.{:?}", grpc.cluster_name)))
        }
        _ => Err(Refusal::unsupported("grpc_services")),
    }
}
