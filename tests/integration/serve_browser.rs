//! The page in a browser, and protection against other web pages.

use std::fs;
use std::process::Command;

use super::serve_page::{corner_model, image_form, post_form, tiff};
use super::serve_support::{Server, browser_script};
use super::support::{workplace, write_model};

#[test]
fn pages_of_other_origins_are_refused() {
    let dir = workplace();
    let server = Server::start(dir.path(), "--host-name cells.lab");
    let own = format!("http://{}", server.addr);
    let form = image_form([9; 4], &[]);
    let post = |path: &str, headers: &[(&str, &str)]| {
        let host = server.addr.to_string();
        let more = [("host", &*host), ("content-type", &*form.0)];
        let headers: Vec<_> = headers.iter().copied().chain(more).collect();
        server.request("POST", path, &headers, &form.1)
    };
    for path in [
        "/v1/predict",
        "/v1/explain",
        "/v2/models/rgby/infer",
        "/v2/repository/models/rgby/unload",
    ] {
        for headers in [
            [
                ("origin", "https://evil.example"),
                ("sec-fetch-site", "cross-site"),
            ],
            [("origin", "http://127.0.0.1:1"), ("accept", "*/*")],
            [("origin", "null"), ("accept", "*/*")],
        ] {
            let refused = post(path, &headers);
            assert_eq!(refused.status, 403, "{path} {headers:?}");
            assert!(
                refused.error().contains("another origin"),
                "{}",
                refused.error()
            );
        }
    }
    for headers in [
        vec![],
        vec![("origin", &*own)],
        vec![("origin", &*own), ("sec-fetch-site", "same-origin")],
    ] {
        assert_eq!(post("/v1/predict", &headers).status, 200, "{headers:?}");
    }
    // DNS rebinding: a foreign host name that resolves to this machine.
    for (host, status) in [("evil.example", 403), ("cells.lab", 200)] {
        let browser = [
            ("host", host),
            ("sec-fetch-site", "same-origin"),
            ("content-type", &form.0),
        ];
        let response = server.request("POST", "/v1/predict", &browser, &form.1);
        assert_eq!(response.status, status, "{host}");
    }
    assert!(server.metric(r#"rgby_errors_total{cause="forbidden"}"#) > 12.5);
}

#[test]
fn the_page_needs_no_key_but_its_requests_do() {
    let dir = workplace();
    fs::write(dir.path().join("keys"), "a-key-of-16-chars\n").unwrap();
    let server = Server::start(dir.path(), "--api-key-file keys");
    for open in ["/", "/page/app.js", "/page/style.css"] {
        assert_eq!(server.get(open).status, 200, "{open}");
    }
    for closed in ["/v1/about", "/v1/samples/2/red.png"] {
        assert_eq!(server.get(closed).status, 401, "{closed}");
        let shown = server.request("GET", closed, &[("x-api-key", "a-key-of-16-chars")], b"");
        assert_eq!(shown.status, 200, "{closed}");
    }
    assert_eq!(
        post_form(&server, "/v1/explain", &image_form([0; 4], &[])).status,
        401
    );
}

#[test]
fn the_page_works_in_chromium() {
    let Some(script) = browser_script("page.mjs") else {
        return;
    };
    let dir = workplace();
    write_model(&dir.path().join("model.onnx"), &corner_model());
    let tiff_path = dir.path().join("plain.tif");
    fs::write(&tiff_path, tiff(&[240, 200, 128, 0])).unwrap();
    let server = Server::start(dir.path(), "");
    fs::write(dir.path().join("keys"), "a-key-of-16-chars\n").unwrap();
    let locked = Server::start(dir.path(), "--api-key-file keys");
    let output = Command::new("node")
        .arg(script)
        .arg(format!("http://{}", server.addr))
        .args(["--tiff".as_ref(), tiff_path.as_os_str()])
        .args([
            "--locked",
            &format!("http://{}", locked.addr),
            "--key",
            "a-key-of-16-chars",
        ])
        .output()
        .unwrap();
    let [stdout, stderr] =
        [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(output.status.success(), "{stdout}{stderr}{}", server.log());
    assert_eq!(stdout.matches(": ok").count(), 8, "{stdout}");
    server.assert_healthy();
}
