//! Compiles our own protobuf files without an installed protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["proto/peer.proto", "proto/ca.proto"], ["proto"])?;
    tonic_prost_build::configure()
        .bytes(".tombolo")
        // In order, so that equal messages encode to equal bytes and a hash of them means something.
        .btree_map(".tombolo")
        .extern_path(".google.protobuf", "::envoy_types::pb::google::protobuf")
        .compile_well_known_types(true)
        .compile_fds(files)?;
    Ok(())
}
