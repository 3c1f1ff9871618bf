//! Clients that others wrote.

use std::process::Command;

use super::serve_support::Server;
use super::support::{skipped, workplace};

#[test]
fn tritons_http_client_is_at_home() {
    let found = Command::new("python3")
        .args(["-c", "import tritonclient.http"])
        .output();
    if !found.is_ok_and(|output| output.status.success()) {
        skipped("Triton's client is not installed: `pip install tritonclient[http]`");
        return;
    }
    let dir = workplace();
    let server = Server::start(dir.path(), "");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/triton_http.py");
    let output = Command::new("python3")
        .args([script, &server.addr.to_string()])
        .output()
        .unwrap();
    let [stdout, stderr] =
        [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(output.status.success(), "{stdout}{stderr}{}", server.log());
    assert_eq!(stdout.matches(": ok").count(), 4, "{stdout}");
    server.assert_well();
}
