//! Mistakes with their places, and how they are shown.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;

use annotate_snippets::{Annotation, AnnotationKind, Element, Group, Level, Origin, Renderer, Snippet};

/// How many mistakes are kept; a file of junk must not cost minutes to report.
const MAX_ITEMS: usize = 100;

/// Longer source lines are named but not shown.
const MAX_LINE: usize = 4096;

/// Everything that is wrong with a configuration, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnostics {
    /// Each mistake or warning.
    pub items: Vec<Diagnostic>,
    /// How many more there are, which were not kept.
    pub omitted: usize,
}

/// One mistake or warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Whether the configuration can be used all the same.
    pub severity: Severity,
    /// Stable name of the kind of mistake.
    pub code: &'static str,
    /// What is wrong.
    pub message: String,
    /// The file's name as given, or the flag's.
    pub file: String,
    /// Line from 1; none when it is about no place in the file.
    pub line: Option<usize>,
    /// Column from 1, in characters.
    pub column: Option<usize>,
    /// What to do about it.
    pub hint: Option<String>,
    excerpt: Option<Excerpt>,
}

/// Whether a configuration with this diagnostic is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// It is not used.
    Error,
    /// It is used; the operator may want to know.
    Warning,
}

/// The source line, and which bytes of it are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Excerpt {
    line: String,
    span: Range<usize>,
}

impl Diagnostics {
    /// For a terminal: each with its source line, a caret and a hint; ANSI colors only when `color`.
    #[must_use]
    pub fn render(&self, color: bool) -> String {
        let renderer = if color {
            Renderer::styled()
        } else {
            Renderer::plain()
        };
        let mut out = String::new();
        for item in &self.items {
            out.push_str(&renderer.render(&[item.group()]));
            out.push_str("\n\n");
        }
        if self.omitted > 0 {
            out.push_str(&format!("and {} more\n", self.omitted));
        }
        out.truncate(out.trim_end().len());
        out
    }

    /// Whether there is nothing to report.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// A single mistake that is about no place in the file.
    pub(super) fn one(file: &str, code: &'static str, message: String, hint: Option<String>) -> Self {
        Self {
            items: vec![Diagnostic {
                severity: Severity::Error,
                code,
                message,
                file: file.to_owned(),
                line: None,
                column: None,
                hint,
                excerpt: None,
            }],
            omitted: 0,
        }
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Diagnostics {}

/// One line for a log: `file:line:column: message; hint`.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if let (Some(line), Some(column)) = (self.line, self.column) {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

impl Diagnostic {
    fn group(&self) -> Group<'_> {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut group = level
            .primary_title(self.message.as_str())
            .id(self.code)
            .element(self.place());
        if let Some(hint) = &self.hint {
            group = group.element(Level::HELP.message(hint.as_str()));
        }
        group
    }

    fn place(&self) -> Element<'_> {
        match (&self.excerpt, self.line, self.column) {
            (Some(excerpt), Some(line), _) => Snippet::<Annotation<'_>>::source(excerpt.line.as_str())
                .line_start(line)
                .path(self.file.as_str())
                .annotation(AnnotationKind::Primary.span(excerpt.span.clone()))
                .into(),
            (None, Some(line), Some(column)) => Origin::path(self.file.as_str())
                .line(line)
                .char_column(column)
                .into(),
            _ => Origin::path(self.file.as_str()).into(),
        }
    }
}

/// Collects what is found while a text is read.
pub(super) struct Findings<'t> {
    file: &'t str,
    text: &'t str,
    errors: Diagnostics,
    warnings: Diagnostics,
    /// Paths of keys that had a value which was taken out.
    broken: BTreeSet<Vec<String>>,
}

impl<'t> Findings<'t> {
    /// Of this text; an empty one means that there is no file to point into.
    pub(super) fn new(file: &'t str, text: &'t str) -> Self {
        Self {
            file,
            text,
            errors: Diagnostics::default(),
            warnings: Diagnostics::default(),
            broken: BTreeSet::new(),
        }
    }

    /// A mistake at these bytes of the text.
    pub(super) fn error(
        &mut self,
        span: &Range<usize>,
        code: &'static str,
        message: impl Into<String>,
        hint: impl Into<Option<String>>,
    ) {
        if self.errors.has_room() {
            let item = self.item(Severity::Error, span, code, message.into(), hint.into());
            self.errors.items.push(item);
        }
    }

    /// Whether no further mistake is kept; this one is then only counted, and its hint need not be worked out.
    pub(super) fn only_counted(&mut self) -> bool {
        !self.errors.has_room()
    }

    /// The place of a part of a string, by the string's place and value; the whole of it when it is written with
    /// escapes.
    pub(super) fn inside(&self, string: &Range<usize>, value: &str, part: &Range<usize>) -> Range<usize> {
        let written = self.text.get(string.clone()).unwrap_or_default();
        match written.find(value) {
            Some(quotes) if !value.is_empty() => {
                string.start + quotes + part.start..string.start + quotes + part.end
            }
            _ => string.clone(),
        }
    }

    /// Something worth knowing at these bytes of the text.
    pub(super) fn warn(
        &mut self,
        span: &Range<usize>,
        code: &'static str,
        message: impl Into<String>,
        hint: impl Into<Option<String>>,
    ) {
        if self.warnings.has_room() {
            let item = self.item(Severity::Warning, span, code, message.into(), hint.into());
            self.warnings.items.push(item);
        }
    }

    /// The value of this key, or one in its list, was wrong and is not there any more.
    pub(super) fn mark_broken(&mut self, path: &[String]) {
        self.broken.insert(path.to_vec());
    }

    /// Whether so: then its absence is no further mistake.
    pub(super) fn is_broken(&self, path: &[&str]) -> bool {
        !self.broken.is_empty() && self.broken.iter().any(|broken| broken == path)
    }

    /// Whether nothing was wrong so far.
    pub(super) fn clean(&self) -> bool {
        self.errors.is_empty()
    }

    /// `value` and the warnings, unless something was wrong.
    pub(super) fn finish<T>(self, value: T) -> Result<(T, Diagnostics), Diagnostics> {
        if self.errors.is_empty() {
            Ok((value, self.warnings.sorted()))
        } else {
            Err(self.errors.sorted())
        }
    }

    /// Everything found, when reading cannot go on.
    pub(super) fn give_up(self) -> Diagnostics {
        self.errors.sorted()
    }

    fn item(
        &self,
        severity: Severity,
        span: &Range<usize>,
        code: &'static str,
        message: String,
        hint: Option<String>,
    ) -> Diagnostic {
        let mut item = Diagnostic {
            severity,
            code,
            message,
            file: self.file.to_owned(),
            line: None,
            column: None,
            hint,
            excerpt: None,
        };
        if !self.text.is_empty() {
            let place = Place::of(self.text, span);
            item.line = Some(place.line);
            item.column = Some(place.column);
            item.excerpt = place.excerpt;
        }
        item
    }
}

impl Diagnostics {
    /// Whether another may be kept; if not it is counted. Asked first, since finding a place costs a look at the text.
    fn has_room(&mut self) -> bool {
        let room = self.items.len() < MAX_ITEMS;
        self.omitted += usize::from(!room);
        room
    }

    fn sorted(mut self) -> Self {
        self.items.sort_by_key(|item| (item.line, item.column));
        self
    }
}

struct Place {
    line: usize,
    column: usize,
    excerpt: Option<Excerpt>,
}

impl Place {
    fn of(text: &str, span: &Range<usize>) -> Self {
        let start = boundary(text, span.start);
        let before = &text[..start];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let rest = &text[line_start..];
        let line = rest.find('\n').map_or(rest, |end| &rest[..end]);
        let line = line.strip_suffix('\r').unwrap_or(line);
        let from = (start - line_start).min(line.len());
        // A table's span may cover many lines: the caret stays on the first.
        let to = boundary(text, span.end)
            .saturating_sub(line_start)
            .clamp(from, line.len());
        Self {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            excerpt: (line.len() <= MAX_LINE).then(|| Excerpt {
                line: line.to_owned(),
                span: from..to,
            }),
        }
    }
}

/// The nearest start of a character at or before `at`.
fn boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// A value inside a message: in backquotes, cut when long, and nothing that a terminal would obey.
pub(super) fn quoted(text: &str) -> String {
    const MAX_CHARS: usize = 80;
    let mut out = String::from("`");
    for (count, c) in text.chars().enumerate() {
        if count == MAX_CHARS {
            out.push('…');
            break;
        }
        if c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out.push('`');
    out
}

/// "did you mean", when one of the known names is close.
pub(super) fn did_you_mean<'n>(name: &str, known: impl IntoIterator<Item = &'n str>) -> Option<String> {
    // Distance is quadratic in length: nothing this long is a misspelling of a name of ours.
    if name.len() > 64 {
        return None;
    }
    let limit = (name.chars().count() / 3).clamp(1, 3);
    known
        .into_iter()
        .map(|known| (strsim::damerau_levenshtein(&name.to_lowercase(), known), known))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| format!("did you mean `{known}`?"))
}
