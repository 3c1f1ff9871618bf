use std::io::{self, Cursor, Write};
use std::path::Path;
use std::sync::Arc;

use arrow_array::builder::StringDictionaryBuilder;
use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Int32Type};
use arrow_array::{
    Array, ArrayRef, BinaryArray, Float32Array, LargeBinaryArray, LargeStringArray, RecordBatch,
    StringArray,
};
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::StreamWriter;

use super::*;
use crate::Failure;
use rgby_imaging::FileSource;

const MIB: u64 = 1 << 20;

fn stains() -> Vec<String> {
    ["red", "blue"].map(str::to_owned).to_vec()
}

fn batch(columns: &[(&str, ArrayRef)]) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(
        columns
            .iter()
            .map(|(name, column)| (*name, column.clone(), true)),
    )
    .unwrap()
}

fn encoded(batches: &[RecordBatch]) -> Vec<u8> {
    let mut writer = StreamWriter::try_new(Vec::new(), &batches[0].schema()).unwrap();
    for batch in batches {
        writer.write(batch).unwrap();
    }
    writer.into_inner().unwrap()
}

fn texts(values: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

fn files(values: &[&[u8]]) -> ArrayRef {
    Arc::new(BinaryArray::from_iter_values(values))
}

/// Two samples, whose files are words.
fn two() -> RecordBatch {
    batch(&[
        ("id", texts(&["a", "b"])),
        ("red", files(&[b"ar", b"br"])),
        ("blue", files(&[b"ab", b"bb"])),
    ])
}

/// Reads a stream to its end: how many batches there were, or the error.
fn read(bytes: &[u8], limit: u64) -> Result<usize, StreamError> {
    let mut count = 0;
    for request in RequestReader::open(bytes, &stains(), limit)?
        .into_iter()
        .flatten()
    {
        request?;
        count += 1;
    }
    Ok(count)
}

fn only_request(batch: RecordBatch) -> Request {
    let bytes = encoded(&[batch]);
    let mut requests = RequestReader::open(Cursor::new(bytes), &stains(), MIB)
        .unwrap()
        .unwrap();
    let request = requests.next().unwrap().unwrap();
    assert!(requests.next().is_none());
    request
}

#[test]
fn files_are_read_by_the_names_in_their_samples() {
    let large = batch(&[
        (
            "id",
            Arc::new(LargeStringArray::from(vec!["a", "b"])) as ArrayRef,
        ),
        ("other", texts(&["is", "ignored"])),
        (
            "blue",
            Arc::new(LargeBinaryArray::from_vec(vec![b"ab", b"bb"])),
        ),
        ("red", files(&[b"ar", b"br"])),
    ]);
    for request in [only_request(two()), only_request(large)] {
        assert_eq!(request.ids().collect::<Vec<_>>(), ["a", "b"]);
        let mut bytes = b"what was before".to_vec();
        for sample in request.samples() {
            for (stain, path) in sample.channels.iter().zip(sample.paths()) {
                request.read(path, 99, &mut bytes).unwrap();
                let word = format!("{}{}", sample.id, &stain[..1]);
                assert_eq!(bytes, word.as_bytes());
                // One byte more than may be, so that the decoder sees that there is more.
                request.read(path, 0, &mut bytes).unwrap();
                assert_eq!(bytes, &word.as_bytes()[..1]);
            }
        }
        for name in [
            "red of row 2",
            "red of row -1",
            "green of row 0",
            "red",
            "/etc/passwd",
        ] {
            assert!(request.read(Path::new(name), 9, &mut bytes).is_err());
        }
    }
}

#[test]
fn null_is_a_missing_file() {
    let some: ArrayRef = Arc::new(BinaryArray::from(vec![Some(&b"x"[..]), None]));
    let paths: ArrayRef = Arc::new(StringArray::from(vec![Some("/x"), None]));
    for column in [some, paths] {
        let request = only_request(batch(&[
            ("id", texts(&["same", "same"])),
            ("red", column.clone()),
            ("blue", column),
        ]));
        let samples = request.samples();
        assert!(samples[0].is_complete());
        assert_eq!(samples[1].files, [None, None]);
    }
}

#[test]
fn empty_streams_have_no_requests() {
    assert_eq!(read(b"", MIB).unwrap(), 0);
    let head = encoded(&[two().slice(0, 0)]);
    assert_eq!(read(&head, MIB).unwrap(), 1);
    let mut writer = StreamWriter::try_new(Vec::new(), &two().schema()).unwrap();
    writer.finish().unwrap();
    assert_eq!(read(&writer.into_inner().unwrap(), MIB).unwrap(), 0);
}

#[test]
fn missing_duplicate_and_mistyped_columns_are_errors() {
    let id = || ("id", texts(&["a"]));
    let red = || ("red", files(&[b"r"]));
    let blue = || ("blue", files(&[b"b"]));
    let floats: ArrayRef = Arc::new(Float32Array::from(vec![1.0]));
    let mut words = StringDictionaryBuilder::<Int32Type>::new();
    words.append_value("w");
    let words: ArrayRef = Arc::new(words.finish());
    for (columns, wanted) in [
        (
            vec![red(), blue()],
            "no column `id` among `red`, `blue`; there must be `id` (utf8) and, binary or utf8, \
             `red`, `blue`",
        ),
        (vec![id(), red()], "no column `blue` among `id`, `red`"),
        (
            vec![id(), ("Red", files(&[b"r"])), blue()],
            "no column `red`",
        ),
        (vec![id(), red(), red(), blue()], "two columns `red`"),
        (vec![id(), id(), red(), blue()], "two columns `id`"),
        (
            vec![("id", files(&[b"a"])), red(), blue()],
            "`id` is Binary; make it utf8",
        ),
        (
            vec![("id", floats.clone()), red(), blue()],
            "`id` is Float32",
        ),
        (
            vec![id(), ("red", floats), blue()],
            "`red` is Float32; make it binary",
        ),
        (
            vec![id(), red(), ("blue", words)],
            "`blue` is Dictionary(Int32, Utf8)",
        ),
        (
            vec![id(), red(), ("blue", texts(&["/b"]))],
            "`red` holds files and `blue` paths",
        ),
        (
            vec![id(), ("red", texts(&["/r"])), blue()],
            "`blue` holds files and `red` paths",
        ),
    ] {
        let error = read(&encoded(&[batch(&columns)]), MIB).unwrap_err();
        assert!(error.to_string().contains(wanted), "{error}");
    }
    let nameless: ArrayRef = Arc::new(StringArray::from(vec![None::<&str>]));
    let error = read(&encoded(&[batch(&[("id", nameless), red(), blue()])]), MIB);
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("`id` is null in row 0 of batch 1"),
        "{error}"
    );
}

#[test]
fn batches_are_limited_and_streams_are_not() {
    let large = vec![7; 300_000];
    let one = batch(&[
        ("id", texts(&["a"])),
        ("red", files(&[&large])),
        ("blue", files(&[&large])),
    ]);
    let stream = encoded(&vec![one.clone(); 5]);
    assert!(stream.len() as u64 > 2 * MIB);
    assert_eq!(read(&stream, MIB).unwrap(), 5);
    let twice = batch(&[
        ("id", texts(&["a", "b"])),
        ("red", files(&[&large, &large])),
        ("blue", files(&[&large, &large])),
    ]);
    let error = read(&encoded(&[one, twice]), MIB).unwrap_err().to_string();
    assert!(
        error.contains("batch 2 has more than 1 MiB") && error.contains("--worker-batch-mib"),
        "{error}"
    );
    let many = vec![""; MOST_ROWS + 1];
    let nothing: ArrayRef = Arc::new(BinaryArray::from(vec![None; many.len()]));
    let rows = batch(&[
        ("id", texts(&many)),
        ("red", nothing.clone()),
        ("blue", nothing),
    ]);
    let fits = encoded(&[rows.slice(0, MOST_ROWS)]);
    assert_eq!(read(&fits, 64 * MIB).unwrap(), 1);
    let error = read(&encoded(&[rows]), 64 * MIB).unwrap_err().to_string();
    assert!(error.contains("65537 rows; send at most 65536"), "{error}");
}

#[test]
fn claimed_lengths_allocate_no_memory() {
    let stream = encoded(&[two()]);
    // The length of a message's head: of the first one, the schema.
    for length in [i32::MAX, i32::MIN, -1, 1 << 30] {
        let mut lying = stream.clone();
        lying[4..8].copy_from_slice(&length.to_le_bytes());
        assert!(read(&lying, MIB).is_err(), "{length}");
    }
}

#[test]
fn damaged_streams_never_panic() {
    let stream = encoded(&[two(), two()]);
    let mut refused = 0;
    for at in 0..stream.len() {
        for change in [0xff, 0x01, 0x80] {
            let mut damaged = stream.clone();
            damaged[at] ^= change;
            refused += usize::from(read(&damaged, MIB).is_err());
        }
    }
    // Some bytes are padding or letters of a sample.
    assert!(
        refused > stream.len() / 2,
        "{refused} of {}",
        3 * stream.len()
    );
    let mut whole = 0;
    for end in 1..stream.len() {
        match read(&stream[..end], MIB) {
            Ok(_) => whole += 1,
            Err(
                StreamError::Truncated { .. }
                | StreamError::Malformed {
                    place: StreamPosition::Head,
                    ..
                },
            ) => {}
            Err(error) => panic!("{end}: {error}"),
        }
    }
    // Behind the schema and each batch, where a stream may end without a mark.
    assert_eq!(whole, 3);
    for text in ["Id,Target\na,1\n", "PAR1", "ARROW1\0\0", "\x7fELF\0\0\0\0"] {
        let error = read(text.as_bytes(), MIB).unwrap_err().to_string();
        assert!(error.starts_with("stdin"), "{error}");
    }
}

fn failure(id: &str, file: &str, error: String) -> Failure {
    Failure {
        id: id.into(),
        file: file.into(),
        error,
    }
}

#[test]
fn responses_are_in_the_order_of_the_samples() {
    let classes = ["x", "y"].map(str::to_owned);
    let request = only_request(batch(&[
        ("id", texts(&["a", "b", "c"])),
        ("red", files(&[b"", b"", b""])),
        ("blue", files(&[b"", b"", b""])),
    ]));
    let mut out = Vec::new();
    let mut answers = ResponseWriter::open(&mut out, &classes).unwrap();
    let long = failure("c", "", "é".repeat(5000));
    let scores = ResponseRows {
        probabilities: &[None, Some(vec![0.25, 1.0]), None],
        predicted: &[None, Some("1".into()), None],
        failures: &[failure("a", "red of row 0", "is empty".into()), long],
    };
    answers.write(&request, scores).unwrap();
    answers.finish().unwrap();
    let mut reader = StreamReader::try_new(&out[..], None).unwrap();
    let batch = reader.next().unwrap().unwrap();
    assert!(reader.next().is_none());
    let names: Vec<_> = batch
        .schema()
        .fields()
        .iter()
        .map(|f| f.name().clone())
        .collect();
    assert_eq!(names, ["id", "x", "y", "predicted", "error"]);
    let ids: Vec<_> = batch
        .column(0)
        .as_string::<i32>()
        .iter()
        .flatten()
        .collect();
    assert_eq!(ids, ["a", "b", "c"]);
    let y = batch.column(2).as_primitive::<Float32Type>();
    assert_eq!(y.iter().collect::<Vec<_>>(), [None, Some(1.0), None]);
    let predicted = batch.column(3).as_string::<i32>();
    assert_eq!(
        predicted.iter().collect::<Vec<_>>(),
        [None, Some("1"), None]
    );
    let errors = batch.column(4).as_string::<i32>();
    assert_eq!(errors.value(0), "red of row 0: is empty");
    assert!(errors.is_null(1));
    assert!(errors.value(2).len() < 2010 && errors.value(2).ends_with('…'));
}

#[test]
fn duplicate_columns_and_closed_outputs_are_errors() {
    struct ClosedPipe;
    impl Write for ClosedPipe {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    for name in ["id", "predicted", "error"] {
        let refused = ResponseWriter::open(Vec::new(), &["x".into(), name.into()]);
        let error = refused.err().unwrap().to_string();
        assert!(error.contains(&format!("called `{name}`")), "{error}");
    }
    let error = ResponseWriter::open(ClosedPipe, &["x".into()])
        .err()
        .unwrap();
    assert!(error.to_string().contains("stdout"), "{error}");
}
