//! Generates the messages and the service trait of the gRPC server into `$OUT_DIR/inference.rs`.

fn main() -> anyhow::Result<()> {
    const PROTO_DIR: &str = "src/grpc";
    println!("cargo::rerun-if-changed={PROTO_DIR}/inference.proto");
    let files = protox::compile(["inference.proto"], [PROTO_DIR])?;
    tonic_prost_build::configure()
        .build_client(false)
        .bytes(".inference")
        .codec_path("crate::grpc::codec::BoundedCodec")
        .compile_fds(files)?;
    Ok(())
}
