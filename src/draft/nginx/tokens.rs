//! An nginx file as a tree of directives, each with its place. Only form is judged here: any directive is one.
//!
//! Own code, because the crates for it (`nginx-config`, the only one with a grammar) refuse a file for a single
//! directive that they do not know, and drop the comments, in which people write where the other color is.

use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Bytes of one file that are read.
const FILE_MAX: u64 = 1 << 20;

/// Files that are read in all.
const FILES_MAX: usize = 200;

/// Blocks within blocks, `include` counted.
const DEPTH_MAX: usize = 16;

/// `name arg… ;` or `name arg… { … }`
#[derive(Clone, Debug)]
pub(super) struct Directive {
    pub name: String,
    pub args: Vec<String>,
    /// What stands in braces, if anything does.
    pub block: Option<Vec<Directive>>,
    /// Comments on its line and, for a block, those within.
    pub comments: Vec<Comment>,
    pub at: Place,
}

/// What stands behind a `#`.
#[derive(Clone, Debug)]
pub(super) struct Comment {
    pub text: String,
    pub at: Place,
}

/// Where something stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub file: Rc<Path>,
    /// From 1.
    pub line: usize,
}

impl Directive {
    pub(super) fn children(&self) -> &[Self] {
        self.block.as_deref().unwrap_or_default()
    }

    /// All of this name, in the block itself.
    pub(super) fn all<'d>(&'d self, name: &'d str) -> impl Iterator<Item = &'d Self> {
        self.children().iter().filter(move |child| child.name == name)
    }

    /// The first argument; empty without one.
    pub(super) fn first(&self) -> &str {
        self.args.first().map_or("", String::as_str)
    }

    /// As somebody would write it.
    pub(super) fn text(&self) -> String {
        let mut text = self.name.clone();
        for arg in &self.args {
            text.push(' ');
            text.push_str(arg);
        }
        text.push_str(if self.block.is_some() { " {…}" } else { ";" });
        text
    }
}

/// A file that cannot be read as nginx would read it.
#[derive(Debug, thiserror::Error)]
#[error("{file}:{line}: {why}", file = .at.file.display(), line = .at.line)]
pub struct NotNginx {
    pub(super) at: Place,
    pub(super) why: String,
}

/// What cannot be included, and why.
pub(super) struct Missing {
    pub at: Place,
    pub text: String,
    pub why: String,
}

/// The directives of a file and of what it includes, in one block.
pub(super) fn read(path: &Path) -> Result<(Directive, Vec<Missing>), NotNginx> {
    let mut reader = Reader {
        base: path.parent().unwrap_or(Path::new("")).to_owned(),
        files: 0,
        missing: Vec::new(),
    };
    let at = Place {
        file: path.into(),
        line: 1,
    };
    let block = reader.file(path, &at, 0)?;
    let root = Directive {
        name: "file".to_owned(),
        args: Vec::new(),
        block: Some(block.0),
        comments: block.1,
        at,
    };
    Ok((root, reader.missing))
}

struct Reader {
    /// `include` is relative to the folder of the first file.
    base: PathBuf,
    files: usize,
    missing: Vec<Missing>,
}

type Block = (Vec<Directive>, Vec<Comment>);

impl Reader {
    fn file(&mut self, path: &Path, asked: &Place, depth: usize) -> Result<Block, NotNginx> {
        let wrong = |why: String| NotNginx {
            at: asked.clone(),
            why,
        };
        self.files += 1;
        if self.files > FILES_MAX {
            return Err(wrong(format!("more than {FILES_MAX} files are included")));
        }
        let metadata =
            std::fs::metadata(path).map_err(|error| wrong(format!("{}: {error}", path.display())))?;
        if metadata.len() > FILE_MAX || !metadata.is_file() {
            return Err(wrong(format!(
                "{} is no file of at most {FILE_MAX} bytes",
                path.display()
            )));
        }
        let bytes = std::fs::read(path).map_err(|error| wrong(format!("{}: {error}", path.display())))?;
        let text = String::from_utf8_lossy(&bytes);
        let mut tokens = Tokens {
            rest: &text,
            at: Place {
                file: path.into(),
                line: 1,
            },
        };
        self.block(&mut tokens, depth, false)
    }

    fn block(&mut self, tokens: &mut Tokens<'_>, depth: usize, inner: bool) -> Result<Block, NotNginx> {
        if depth > DEPTH_MAX {
            return Err(tokens.wrong(format!("more than {DEPTH_MAX} blocks within each other")));
        }
        let mut found: Vec<Directive> = Vec::new();
        let mut comments: Vec<Comment> = Vec::new();
        let mut words: Vec<(String, Place)> = Vec::new();
        loop {
            tokens.skip();
            let at = tokens.at.clone();
            match tokens.next()? {
                Token::Word(word) => words.push((word, at)),
                Token::Comment(text) => {
                    let comment = Comment { text, at };
                    match found.last_mut().filter(|last| last.at.line == comment.at.line) {
                        Some(last) => last.comments.push(comment),
                        None => comments.push(comment),
                    }
                }
                Token::Semicolon | Token::Open if words.is_empty() => {
                    return Err(tokens.wrong("a directive begins with its name".to_owned()));
                }
                Token::Semicolon => match directive(&mut words) {
                    Some(directive) if directive.name == "include" => {
                        self.include(&directive, depth, &mut found)?;
                    }
                    other => found.extend(other),
                },
                Token::Open => {
                    let (block, within) = self.block(tokens, depth + 1, true)?;
                    found.extend(directive(&mut words).map(|directive| Directive {
                        block: Some(block),
                        comments: within,
                        ..directive
                    }));
                }
                Token::Close if inner && words.is_empty() => return Ok((found, comments)),
                Token::End if !inner && words.is_empty() => return Ok((found, comments)),
                Token::Close => {
                    return Err(tokens.wrong("a `}` that nothing opened, or a `;` is missing".to_owned()));
                }
                Token::End => {
                    return Err(tokens.wrong("the file ends within a block or a directive".to_owned()));
                }
            }
        }
    }

    /// What cannot be read is told and left out: nginx's own files are often not where this runs.
    fn include(
        &mut self,
        directive: &Directive,
        depth: usize,
        found: &mut Vec<Directive>,
    ) -> Result<(), NotNginx> {
        let pattern = self.base.join(directive.first());
        match matching(&pattern) {
            Ok(paths) => {
                for path in paths {
                    found.extend(self.file(&path, &directive.at, depth + 1)?.0);
                }
            }
            Err(why) => self.missing.push(Missing {
                at: directive.at.clone(),
                text: directive.text(),
                why,
            }),
        }
        Ok(())
    }
}

/// The files that a pattern names: `*` in its last part only, in the order of their names, as nginx reads them.
fn matching(pattern: &Path) -> Result<Vec<PathBuf>, String> {
    let name = pattern
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let Some((before, behind)) = name.split_once('*') else {
        return match pattern.is_file() {
            true => Ok(vec![pattern.to_owned()]),
            false => Err(format!("there is no {}", pattern.display())),
        };
    };
    let folder = pattern.parent().unwrap_or(Path::new(""));
    let entries = std::fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let long = name.len() >= before.len() + behind.len();
            long && name.starts_with(before) && name.ends_with(behind) && path.is_file()
        })
        .collect();
    paths.sort();
    Ok(paths)
}

/// What the words say, once there are any.
fn directive(words: &mut Vec<(String, Place)>) -> Option<Directive> {
    let mut words = words.drain(..);
    let (name, at) = words.next()?;
    Some(Directive {
        name,
        args: words.map(|(word, _)| word).collect(),
        block: None,
        comments: Vec::new(),
        at,
    })
}

#[derive(Debug)]
enum Token {
    Word(String),
    Comment(String),
    Semicolon,
    Open,
    Close,
    End,
}

struct Tokens<'t> {
    rest: &'t str,
    at: Place,
}

impl Tokens<'_> {
    fn wrong(&self, why: String) -> NotNginx {
        NotNginx {
            at: self.at.clone(),
            why,
        }
    }

    fn take(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.rest = &self.rest[c.len_utf8()..];
        if c == '\n' {
            self.at.line += 1;
        }
        Some(c)
    }

    fn skip(&mut self) {
        while self.rest.starts_with(char::is_whitespace) {
            self.take();
        }
    }

    /// The token that begins here, where no blank is.
    fn next(&mut self) -> Result<Token, NotNginx> {
        let Some(c) = self.rest.chars().next() else {
            return Ok(Token::End);
        };
        Ok(match c {
            ';' | '{' | '}' => {
                self.take();
                match c {
                    ';' => Token::Semicolon,
                    '{' => Token::Open,
                    _ => Token::Close,
                }
            }
            '#' => {
                let line = self.rest.lines().next().unwrap_or_default();
                self.rest = &self.rest[line.len()..];
                Token::Comment(line.trim_start_matches('#').trim().to_owned())
            }
            '"' | '\'' => Token::Word(self.quoted(c)?),
            _ => Token::Word(self.bare()),
        })
    }

    fn quoted(&mut self, quote: char) -> Result<String, NotNginx> {
        let unclosed = self.wrong(format!("a {quote} that is never closed"));
        self.take();
        let mut word = String::new();
        loop {
            match self.take() {
                None => return Err(unclosed),
                Some(c) if c == quote => return Ok(word),
                Some('\\') => match self.take() {
                    Some('n') => word.push('\n'),
                    Some('r') => word.push('\r'),
                    Some('t') => word.push('\t'),
                    Some(c) if c == quote || c == '\\' => word.push(c),
                    // Regular expressions are full of them: nginx leaves those alone.
                    Some(c) => word.extend(['\\', c]),
                    None => return Err(unclosed),
                },
                Some(c) => word.push(c),
            }
        }
    }

    /// To the next blank, `;`, `{` or `}`. `${name}` belongs to the word.
    fn bare(&mut self) -> String {
        let mut word = String::new();
        while let Some(c) = self.rest.chars().next() {
            if c.is_whitespace() || matches!(c, ';' | '}') {
                break;
            }
            if c == '{' {
                if !word.ends_with('$') {
                    break;
                }
                while let Some(c) = self.take() {
                    word.push(c);
                    if c == '}' {
                        break;
                    }
                }
                continue;
            }
            self.take();
            word.push(c);
            if c == '\\' {
                word.extend(self.take());
            }
        }
        word
    }
}
