//! The page and its routes: samples, previews, explanations, uploads in one file.

use std::io::{Cursor, Read};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use image::{GrayImage, Luma};
use rgby::graph::ModelProto;
use rgby::imaging::CHANNELS;
use serde_json::{Value, json};

use super::serve_support::{HttpResponse, Server, form, send, slow_model};
use super::support::{
    change_spec, integers, node, probability, tiny_model, value, workplace, write_model,
};

/// Side of [`corner_model`]'s input: a cell of the default grid has 4×4 pixels.
const SIDE: i64 = 32;

/// Returns the tiny model, reduced to the 4×4 pixels at the top right of the image.
pub fn corner_model() -> ModelProto {
    let mut model = tiny_model();
    change_spec(&mut model, |spec| spec.preprocess.size = SIDE as u32);
    let graph = model.graph.as_mut().unwrap();
    graph.input = vec![value("image", &[4, SIDE, SIDE])];
    graph.initializer = vec![
        integers("starts", &[0, SIDE - 4]),
        integers("ends", &[4, SIDE]),
        integers("axes", &[2, 3]),
    ];
    let slice = node("Slice", &["image", "starts", "ends", "axes"], "corner");
    graph.node.insert(0, slice);
    graph.node[1].input[0] = "corner".into();
    model
}

/// Returns a form with a uniform gray file per stain and further fields.
pub fn image_form(grays: [u8; 4], more: &[(&str, &str)]) -> (String, Vec<u8>) {
    let files = grays.map(|gray| {
        let mut bytes = Cursor::new(Vec::new());
        let image = GrayImage::from_pixel(64, 48, Luma([gray]));
        image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
        bytes.into_inner()
    });
    let files = CHANNELS.iter().zip(&files);
    let mut fields: Vec<(&str, &[u8])> = files.map(|(name, bytes)| (*name, &bytes[..])).collect();
    fields.extend(more.iter().map(|(name, text)| (*name, text.as_bytes())));
    form(&fields)
}

pub fn post_form(server: &Server, path: &str, (content, body): &(String, Vec<u8>)) -> HttpResponse {
    server.request("POST", path, &[("content-type", content)], body)
}

/// Returns the lines of a streamed explanation.
fn explain(server: &Server, form: &(String, Vec<u8>)) -> Vec<Value> {
    let (content, body) = form;
    let mut stream = server.connect();
    let headers = [("connection", "close"), ("content-type", &**content)];
    send(&mut stream, "POST", "/v1/explain", &headers, body).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    assert!(
        text.contains("content-type: application/x-ndjson"),
        "{text}"
    );
    // Skips the chunk sizes between the lines, which are not JSON objects.
    let lines = text.lines().filter(|line| line.starts_with('{'));
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn the_page_is_complete_and_loads_only_its_own_files() {
    let dir = workplace();
    let server = Server::start(dir.path(), "");
    let page = server.get("/");
    assert_eq!(page.status, 200);
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    let policy = page.header("content-security-policy").unwrap();
    assert!(
        policy.starts_with("default-src 'none'; script-src 'self';"),
        "{policy}"
    );
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    // Follows all references between the files.
    let mut files = vec!["/".to_owned()];
    let mut seen = 0;
    while let Some(path) = files.get(seen).cloned() {
        seen += 1;
        let file = server.get(&path);
        assert_eq!(file.status, 200, "{path}");
        let text = file.text().replace("http://www.w3.org/2000/svg", "");
        assert!(!text.contains("://"), "{path} refers to another server");
        let named = text.split('"').filter_map(|word| {
            let name = word
                .strip_prefix("/page/")
                .or_else(|| word.strip_prefix("./"))?;
            Some(format!("/page/{name}"))
        });
        for name in named {
            if !files.contains(&name) {
                files.push(name);
            }
        }
        let tag = file.header("etag").unwrap().to_owned();
        let again = server.request("GET", &path, &[("if-none-match", &tag)], b"");
        assert_eq!(again.status, 304, "{path}");
        assert_eq!(again.header("etag"), Some(&*tag));
    }
    assert_eq!(seen, 9, "{files:?}");
    for bad in [
        "/page/",
        "/page/..%2findex.html",
        "/page/index.html",
        "/page/%ff",
    ] {
        assert!([400, 404].contains(&server.get(bad).status), "{bad}");
    }
}

#[test]
fn server_info_lists_models_limits_and_samples() {
    let dir = workplace();
    let server = Server::start(dir.path(), "--name cells --max-body 7");
    let about = server.get("/v1/about").json();
    let model = &about["models"][0];
    assert_eq!(
        (&model["name"], &model["stains"]),
        (&json!("cells"), &json!(CHANNELS))
    );
    assert_eq!(model["classes"].as_array().unwrap().len(), 28);
    assert_eq!(model["classes"][2]["name"], "Nucleoli");
    assert!(
        model["classes"][2]["about"]
            .as_str()
            .unwrap()
            .contains("ribosome")
    );
    assert_eq!(about["limits"]["max_body"], 7 << 20);
    assert_eq!(about["samples"].as_array().unwrap().len(), 28);
    let description = server.get("/openapi.json").json();
    for path in [
        "/",
        "/page/{file}",
        "/v1/about",
        "/v1/samples/{class}/{file}",
        "/v1/explain",
    ] {
        assert!(description["paths"][path].is_object(), "{path}");
    }
}

#[test]
fn samples_are_drawn() {
    let dir = workplace();
    let server = Server::start(dir.path(), "");
    let config = rgby::synth::SynthConfig {
        classes: vec![2],
        ..Default::default()
    };
    let expected = rgby::synth::sample(&config, 0).unwrap();
    assert_eq!(expected.targets, [2]);
    for (number, stain) in CHANNELS.iter().enumerate() {
        let sample = server.get(&format!("/v1/samples/2/{stain}.png"));
        assert_eq!(sample.header("content-type"), Some("image/png"));
        let image = image::load_from_memory(&sample.body).unwrap().into_luma8();
        assert_eq!(Some(&image.into_raw()[..]), expected.planes.plane(number));
    }
    for bad in [
        "28/red.png",
        "-1/red.png",
        "2/red",
        "2/cyan.png",
        "x/red.png",
        "2/..%2fred.png",
    ] {
        assert_eq!(
            server.get(&format!("/v1/samples/{bad}")).status,
            404,
            "{bad}"
        );
    }
}

#[test]
fn predictions_include_previews_on_request() {
    let dir = workplace();
    let server = Server::start(dir.path(), "");
    let grays = [240, 10, 77, 128];
    let response = post_form(
        &server,
        "/v1/predict",
        &image_form(grays, &[("planes", "32")]),
    );
    assert_eq!(response.status, 200, "{}", response.text());
    let image = &response.json()["image"];
    assert_eq!(
        (&image["width"], &image["height"]),
        (&json!(64), &json!(48))
    );
    for (number, gray) in grays.into_iter().enumerate() {
        let plane = &image["planes"][number];
        assert_eq!(plane["stain"], CHANNELS[number]);
        let png = BASE64_STANDARD
            .decode(plane["png"].as_str().unwrap())
            .unwrap();
        let plane = image::load_from_memory(&png).unwrap().into_luma8();
        assert_eq!(plane, GrayImage::from_pixel(32, 24, Luma([gray])));
    }
    let without = post_form(&server, "/v1/predict", &image_form(grays, &[]));
    assert!(without.json().get("image").is_none());
    for bad in ["0", "1025", "big", "-1", "99999999999"] {
        let refused = post_form(
            &server,
            "/v1/predict",
            &image_form(grays, &[("planes", bad)]),
        );
        assert_eq!(refused.status, 400, "{bad}");
        assert!(refused.error().contains("`planes`"), "{}", refused.error());
    }
}

/// Returns a TIFF with a uniform page per gray value, without channel names.
pub fn tiff(grays: &[u8]) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    let mut encoder = tiff::encoder::TiffEncoder::new(&mut bytes).unwrap();
    for gray in grays {
        let pixels = vec![u16::from(*gray) * 257; 64 * 48];
        let page = encoder.write_image::<tiff::encoder::colortype::Gray16>(64, 48, &pixels);
        page.unwrap();
    }
    bytes.into_inner()
}

#[test]
fn one_file_may_contain_all_stains() {
    let dir = workplace();
    let server = Server::start(dir.path(), "");
    let file = tiff(&[5, 240, 100, 60, 20]);
    let predict = |channels: Option<&str>| {
        let mut fields: Vec<(&str, &[u8])> = vec![("image", &file)];
        fields.extend(channels.map(|text| ("channels", text.as_bytes())));
        post_form(&server, "/v1/predict", &form(&fields))
    };
    let response = predict(Some("1, 2,3,4"));
    assert_eq!(response.status, 200, "{}", response.text());
    for (index, class) in response.json()["classes"]
        .as_array()
        .unwrap()
        .iter()
        .enumerate()
    {
        let expected = probability([240, 100, 60, 20][index % 4]);
        let found = class["probability"].as_f64().unwrap() as f32;
        assert!(
            (found - expected).abs() < 1e-5,
            "{index}: {found} for {expected}"
        );
    }
    for (channels, expected) in [
        (None, "no channel `red`"),
        (Some("0,1,2,9"), "no channel `9`"),
        (Some("0,1,2"), "must have 4"),
        (Some(""), "must have 4"),
    ] {
        let refused = predict(channels);
        assert_eq!(refused.status, 400, "{channels:?}");
        let error = refused.error();
        assert!(
            error.contains(expected) && error.contains("`channels`"),
            "{error}"
        );
    }
    let png = image_form([1; 4], &[("image", "II*\0")]);
    let refused = post_form(&server, "/v1/predict", &png);
    assert_eq!(refused.status, 400);
    let both = form(&[("image", &file), ("red", &file)]);
    let refused = post_form(&server, "/v1/predict", &both);
    assert!(
        refused.error().contains("unexpected field"),
        "{}",
        refused.error()
    );
    let no_tiff = post_form(&server, "/v1/predict", &form(&[("image", b"GIF89a")]));
    assert!(
        no_tiff.error().contains("not a TIFF file"),
        "{}",
        no_tiff.error()
    );
    server.assert_healthy();
}

#[test]
fn explanations_find_the_relevant_part_of_the_image() {
    let dir = workplace();
    write_model(&dir.path().join("model.onnx"), &corner_model());
    let server = Server::start(dir.path(), "");
    let grays = [240, 200, 128, 0];
    let lines = explain(&server, &image_form(grays, &[]));
    assert_eq!(lines.len(), 9);
    assert_eq!(
        (&lines[0]["grid"], &lines[0]["model_name"]),
        (&json!(8), &json!("rgby"))
    );
    let number = |value: &Value| value.as_f64().unwrap() as f32;
    for (class, whole) in lines[0]["probabilities"]
        .as_array()
        .unwrap()
        .iter()
        .enumerate()
    {
        assert!((number(whole) - probability(grays[class % 4])).abs() < 1e-5);
    }
    for (row, line) in lines[1..].iter().enumerate() {
        assert_eq!(line["row"], row);
        for (column, cell) in line["falls"].as_array().unwrap().iter().enumerate() {
            for (class, fall) in cell.as_array().unwrap().iter().enumerate() {
                let at_corner = (row, column) == (0, 7);
                let hidden = probability(grays[class % 4]) - probability(0);
                let expected = if at_corner { hidden } else { 0.0 };
                let fall = number(fall);
                assert!(
                    (fall - expected).abs() < 1e-5,
                    "{row} {column} {class}: {fall}, {expected}"
                );
            }
        }
    }
    // 64 pixels are resized to 32. A cell of 16 has two pixels per side; the corner has four.
    let fine = explain(&server, &image_form(grays, &[("grid", "16")]));
    assert_eq!(fine.len(), 17);
    let lit = |line: &Value, column: usize| number(&line["falls"][column][0]) > 0.01;
    for (row, line) in fine[1..].iter().enumerate() {
        for column in 0..16 {
            assert_eq!(lit(line, column), row < 2 && column >= 14, "{row} {column}");
        }
    }
    for bad in ["0", "17", "many"] {
        let refused = post_form(&server, "/v1/explain", &image_form(grays, &[("grid", bad)]));
        assert_eq!(refused.status, 400, "{bad}");
    }
}

#[test]
fn explanations_respect_deadlines_and_queue_limits() {
    let dir = workplace();
    write_model(&dir.path().join("model.onnx"), &slow_model(30));
    let server = Server::start(dir.path(), "--max-batch 2 --max-queue 4 --timeout 600s");
    // A row has more images than the queue.
    let lines = explain(&server, &image_form([9; 4], &[("grid", "5")]));
    assert_eq!(lines.len(), 2);
    let error = lines[1]["error"].as_str().unwrap();
    assert!(error.contains("larger than the queue"), "{error}");
    let lines = explain(&server, &image_form([9; 4], &[("grid", "3")]));
    assert_eq!(lines.len(), 4, "{lines:?}");
    let (content, body) = image_form([9; 4], &[("grid", "3")]);
    let headers = [("content-type", &*content), ("timeout", "1ms")];
    let late = server.request("POST", "/v1/explain", &headers, &body);
    assert_eq!(late.status, 504);
    server.wait_for(r#"rgby_queue_images{model="rgby"}"#, |waiting| {
        waiting < 0.5
    });
    server.assert_healthy();
}
