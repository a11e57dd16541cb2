//! Takes the items of one list out of an encoded message, so that they can be decoded one after the other.
//!
//! A decoded message is many times larger than what is made of it. A table of ten thousand virtual hosts is never there as a whole:
//! each is decoded, turned into configuration and dropped before the next.

use super::{
    Refusal,
    any::{self, Decoded},
};
use prost::{
    Message,
    encoding::{WireType, decode_key, decode_varint, skip_field},
};

/// A message without one of its fields, and the values of that field, in order.
pub(super) struct Split<'b> {
    /// Everything else.
    pub(super) rest: Vec<u8>,
    /// The field's values, encoded.
    pub(super) items: Vec<&'b [u8]>,
}

impl Split<'_> {
    /// The message without the field.
    pub(super) fn message<M: Message + Default>(&self) -> Decoded<M> {
        any::decode(&self.rest)
    }
}

/// Takes a field that holds messages out of a message.
pub(super) fn split(bytes: &[u8], field: u32) -> Decoded<Split<'_>> {
    parts(bytes, field).ok_or_else(|| Refusal::new("", "not a valid message"))
}

fn parts(bytes: &[u8], field: u32) -> Option<Split<'_>> {
    let mut out = Split { rest: Vec::new(), items: Vec::new() };
    let mut left = bytes;
    while !left.is_empty() {
        let before = left;
        let (number, kind) = decode_key(&mut left).ok()?;
        if number == field && kind == WireType::LengthDelimited {
            let length = usize::try_from(decode_varint(&mut left).ok()?).ok()?;
            let (item, tail) = left.split_at_checked(length)?;
            out.items.push(item);
            left = tail;
        } else {
            skip_field(kind, number, &mut left, prost::encoding::DecodeContext::default()).ok()?;
            out.rest.extend_from_slice(before.get(..before.len() - left.len())?);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tombolo_controlplane_api::xds::envoy::config::route::v3::{RouteConfiguration, VirtualHost};

    #[test]
    fn what_is_taken_out_and_what_stays_are_the_whole() {
        let host = |name: &str| VirtualHost { name: name.into(), domains: vec![name.into()], ..Default::default() };
        let table = RouteConfiguration {
            name: "t".into(),
            virtual_hosts: vec![host("a"), host("b")],
            vhost_header: "x".into(),
            ..Default::default()
        };
        let bytes = table.encode_to_vec();
        let apart = split(&bytes, 2).unwrap();
        let hosts: Vec<VirtualHost> = apart.items.iter().map(|item| VirtualHost::decode(*item).unwrap()).collect();
        assert_eq!(RouteConfiguration { virtual_hosts: hosts, ..apart.message().unwrap() }, table);
        assert!(split(&bytes[..bytes.len() - 1], 2).is_err());
        assert!(split(&[0x12, 0xff], 2).is_err());
    }
}
