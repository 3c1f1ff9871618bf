//! Generates the messages and the service of the gRPC server: `$OUT_DIR/inference.rs`.

fn main() -> anyhow::Result<()> {
    const FOLDER: &str = "src/grpc";
    println!("cargo::rerun-if-changed={FOLDER}/inference.proto");
    let files = protox::compile(["inference.proto"], [FOLDER])?;
    tonic_prost_build::configure()
        .build_client(false)
        .bytes(".inference")
        .codec_path("crate::grpc::codec::Bounded")
        .compile_fds(files)?;
    Ok(())
}
