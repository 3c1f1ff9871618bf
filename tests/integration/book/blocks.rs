//! Parses `sh` blocks in Markdown, and splits command lines into words.

/// A fenced `sh` block.
pub struct Block {
    /// Line of the opening fence in the page, counted from 1.
    pub line: usize,
    /// Commands, with continuation lines joined.
    pub commands: Vec<String>,
}

/// Returns the `sh` blocks of a page.
pub fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = (1..).zip(text.lines());
    while let Some((line, text)) = lines.next() {
        let Some(language) = text.trim_start().strip_prefix("```") else {
            continue;
        };
        let inside = lines.by_ref().map(|(_, text)| text);
        let inside: Vec<&str> = inside
            .take_while(|text| text.trim_start() != "```")
            .collect();
        if language != "sh" {
            continue;
        }
        let joined = inside.join("\n").replace("\\\n", " ");
        let commands = joined.lines().map(|line| line.trim_end().to_owned());
        let commands = commands.filter(|line| {
            let line = line.trim_start();
            !line.is_empty() && !line.starts_with('#')
        });
        blocks.push(Block {
            line,
            commands: commands.collect(),
        });
    }
    blocks
}

/// Splits a command into words, without quotes. Stops at a comment, a redirection, a pipe, `&`
/// or `;`.
pub fn words(command: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in command.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, ' ') => words.extend(word.take()),
            (None, '<' | '>' | '|' | '&' | ';') => break,
            (None, '#') if word.is_none() => break,
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[test]
fn splits_pages_into_blocks_and_commands_into_words() {
    let text = "a\n```sh\n# no\nrgby a \\\n    --b 'c d' # e\n\nfor x; do\n    y\ndone\n```\n\
                ```toml\nrgby z\n```\n  ```sh\nrgby q\n  ```";
    let blocks = blocks(text);
    assert_eq!(blocks.len(), 2);
    assert_eq!((blocks[0].line, blocks[1].line), (2, 14));
    let first = ["rgby a      --b 'c d' # e", "for x; do", "    y", "done"];
    assert_eq!(blocks[0].commands, first);
    assert_eq!(words(first[0]), ["rgby", "a", "--b", "c d"]);
    assert_eq!(words("rgby x --w <in >out"), ["rgby", "x", "--w"]);
    assert_eq!(words("a '' \"b#\"c # d"), ["a", "", "b#c"]);
}
