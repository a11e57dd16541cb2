//! HTTP/2 on the wire, without I/O: frames, HPACK, the state of a connection and its streams. Used by `gateway/proxy`.
