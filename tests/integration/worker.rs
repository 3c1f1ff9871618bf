//! `rgby score --worker`: its Arrow protocol and its output.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Stdio};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Float32Type;
use arrow_array::{Array, ArrayRef, BinaryArray, RecordBatch, StringArray};
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use rgby::imaging::CHANNELS;

use crate::support::{draw_images, records, rgby, run, workplace, workplace_with_samples};

pub const WORKER: &str = "score --model model.onnx --engine tract --worker";

/// A running worker with its Arrow streams.
pub struct WorkerProcess {
    pub child: Child,
    requests: Option<StreamWriter<ChildStdin>>,
    pub responses: StreamReader<ChildStdout>,
    stderr: ChildStderr,
}

pub fn start(dir: &Path, args: &str) -> Child {
    rgby()
        .args(format!("{WORKER} {args}").split_whitespace())
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

impl WorkerProcess {
    pub fn start(dir: &Path, args: &str, schema: &SchemaRef) -> Self {
        let mut child = start(dir, args);
        let stdin = child.stdin.take().unwrap();
        let stdout = child.stdout.take().unwrap();
        Self {
            requests: Some(StreamWriter::try_new(stdin, schema).unwrap()),
            // The schema of the responses is written before the first request.
            responses: StreamReader::try_new(stdout, None).unwrap(),
            stderr: child.stderr.take().unwrap(),
            child,
        }
    }

    pub fn send(&mut self, batch: &RecordBatch) {
        let requests = self.requests.as_mut().unwrap();
        requests.write(batch).unwrap();
        requests.flush().unwrap();
    }

    pub fn receive(&mut self) -> RecordBatch {
        self.responses.next().unwrap().unwrap()
    }

    /// Waits for the end of the process and returns its exit code and stderr.
    pub fn end(mut self) -> (Option<i32>, String) {
        assert!(self.responses.next().is_none());
        let mut stderr = String::new();
        self.stderr.read_to_string(&mut stderr).unwrap();
        (self.child.wait().unwrap().code(), stderr)
    }

    /// Ends the stream of requests, then waits like [`Self::end`].
    fn close(mut self) -> (Option<i32>, String) {
        let mut requests = self.requests.take().unwrap();
        requests.finish().unwrap();
        drop(requests);
        self.end()
    }
}

pub fn schema(kind: &DataType) -> SchemaRef {
    let stains = CHANNELS.map(|stain| Field::new(stain, kind.clone(), true));
    let id = Field::new("id", DataType::Utf8, false);
    Arc::new(Schema::new(
        [id].into_iter().chain(stains).collect::<Vec<_>>(),
    ))
}

/// Returns samples of a folder as a batch of file contents (`Binary`) or paths (`Utf8`).
pub fn request(images: &Path, ids: &[String], kind: &DataType) -> RecordBatch {
    let mut columns: Vec<ArrayRef> = vec![Arc::new(StringArray::from_iter_values(ids))];
    for stain in CHANNELS {
        let paths = ids
            .iter()
            .map(|id| images.join(format!("{id}_{stain}.png")))
            .map(|path| path.exists().then_some(path));
        columns.push(if *kind == DataType::Binary {
            let files = paths.map(|path| path.map(|path| fs::read(path).unwrap()));
            Arc::new(files.collect::<BinaryArray>())
        } else {
            let texts = paths.map(|path| path.map(|path| path.to_str().unwrap().to_owned()));
            Arc::new(texts.collect::<StringArray>())
        });
    }
    RecordBatch::try_new(schema(kind), columns).unwrap()
}

/// Predicted classes as in `--out` and probabilities as in `--scores`, by id. Failed samples have
/// no probabilities.
type Rows = BTreeMap<String, (String, Vec<f32>)>;

fn rows_of_files(dir: &Path) -> Rows {
    let scores = records(dir, "p.csv");
    let rows = records(dir, "out.csv").into_iter().zip(scores);
    rows.map(|(out, scores)| {
        assert_eq!(out[0], scores[0]);
        let scores = scores[1..].iter().filter(|text| !text.is_empty());
        let scores = scores.map(|text| text.parse().unwrap()).collect();
        (out[0].clone(), (out[1].clone(), scores))
    })
    .collect()
}

fn rows_of_response(response: &RecordBatch) -> Rows {
    let classes = response.num_columns() - 3;
    let ids = response.column(0).as_string::<i32>();
    let predicted = response.column(classes + 1).as_string::<i32>();
    let errors = response.column(classes + 2).as_string::<i32>();
    let row = |row: usize| {
        let columns = response.columns()[1..=classes].iter();
        let scores: Vec<f32> = columns
            .map(AsArray::as_primitive::<Float32Type>)
            .filter(|column| column.is_valid(row))
            .map(|column| column.value(row))
            .collect();
        assert_eq!(scores.is_empty(), errors.is_valid(row));
        assert_eq!(scores.is_empty(), predicted.is_null(row));
        let text = if predicted.is_null(row) {
            ""
        } else {
            predicted.value(row)
        };
        (ids.value(row).to_owned(), (text.to_owned(), scores))
    };
    (0..response.num_rows()).map(row).collect()
}

/// Creates 43 samples. One has a file that is not an image, one lacks a file.
pub fn plate() -> tempfile::TempDir {
    let dir = workplace();
    let path = dir.path();
    draw_images(path, 43, 32);
    let mut files: Vec<_> = fs::read_dir(path.join("images"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    fs::write(&files[0], "no image").unwrap();
    fs::remove_file(&files[21]).unwrap();
    dir
}

#[test]
fn responses_are_bit_identical_to_score() {
    let dir = plate();
    let path = dir.path();
    let scored = run(
        path,
        "score --model model.onnx --engine tract --images images --out out.csv --scores p.csv \
         --keep-argmax --threshold 0.6",
    );
    assert_eq!(scored.code, Some(1), "{scored:?}");
    let expected = rows_of_files(path);
    let ids: Vec<String> = expected.keys().cloned().collect();
    let images = path.join("images");
    for kind in [DataType::Binary, DataType::Utf8] {
        for count in [1, 8, 100] {
            let options = "--keep-argmax --threshold 0.6";
            let mut worker = WorkerProcess::start(path, options, &schema(&kind));
            let mut found = Rows::new();
            for ids in ids.chunks(count) {
                worker.send(&request(&images, ids, &kind));
                // The response does not wait for the next request.
                let response = worker.receive();
                let returned = response.column(0).as_string::<i32>();
                assert!(returned.iter().flatten().eq(ids.iter().map(String::as_str)));
                found.append(&mut rows_of_response(&response));
            }
            assert!(found == expected, "{kind} {count}");
            let (code, stderr) = worker.close();
            assert_eq!(code, Some(1), "{stderr}");
            assert!(stderr.contains("2 of 43 samples failed"), "{stderr}");
        }
    }
}

#[test]
fn unreadable_samples_have_an_error_in_their_row() {
    let dir = workplace_with_samples();
    let path = dir.path();
    let ids = ["dark", "light", "mixed", "none"].map(str::to_owned);
    let images = path.join("images");
    fs::write(images.join("light_green.png"), "no image").unwrap();
    image::GrayImage::new(3, 3)
        .save(images.join("mixed_blue.png"))
        .unwrap();
    fs::remove_file(images.join("dark_yellow.png")).unwrap();
    for (kind, wanted) in [
        (
            DataType::Binary,
            [
                "there is no file for channel yellow",
                "green of row 1: ",
                "blue of row 2: is 3×3 pixels, but red of row 2 is 9×9",
                "there is no image file with this id",
            ],
        ),
        (
            DataType::Utf8,
            [
                "there is no file for channel yellow",
                "images/light_green.png: ",
                "images/mixed_blue.png: is 3×3 pixels, but ",
                "there is no image file with this id",
            ],
        ),
    ] {
        let mut worker = WorkerProcess::start(path, "--failed-ok", &schema(&kind));
        worker.send(&request(&images, &ids, &kind));
        let response = worker.receive();
        let errors = response.column_by_name("error").unwrap().as_string::<i32>();
        for (row, wanted) in wanted.iter().enumerate() {
            let error = errors.value(row);
            assert!(error.contains(wanted), "{error}");
        }
        // An empty request has an empty response.
        worker.send(&request(&images, &[], &kind));
        assert_eq!(worker.receive().num_rows(), 0);
        assert_eq!(worker.close().0, Some(0));
    }
    let mut worker = WorkerProcess::start(path, "", &schema(&DataType::Utf8));
    let mut columns = request(&images, &ids[..1], &DataType::Utf8)
        .columns()
        .to_vec();
    columns[1] = Arc::new(StringArray::from(vec!["/nowhere/a.png"]));
    worker.send(&RecordBatch::try_new(schema(&DataType::Utf8), columns).unwrap());
    let response = worker.receive();
    let error = response.column_by_name("error").unwrap().as_string::<i32>();
    assert!(error.value(0).starts_with("/nowhere/a.png: cannot be read"));
    assert_eq!(worker.close().0, Some(1));
}
