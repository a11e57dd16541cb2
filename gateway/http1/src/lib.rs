//! HTTP/1.0 and 1.1 on the wire, without I/O: strict parsing of heads, body framing, writing. Used by `gateway/proxy`.
