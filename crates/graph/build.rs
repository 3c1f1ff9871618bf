//! Generates the protobuf types of `proto/onnx.proto`, without `protoc`.

fn main() {
    println!("cargo::rerun-if-changed=proto/onnx.proto");
    protobuf_codegen::Codegen::new()
        .pure()
        .include("proto")
        .input("proto/onnx.proto")
        // Fields of bytes share the buffer that was parsed instead of copying it.
        .customize(protobuf_codegen::Customize::default().tokio_bytes(true))
        .cargo_out_dir("proto")
        .run_from_script();
}
