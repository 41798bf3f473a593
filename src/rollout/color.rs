//! The two colors, and a pair that has one value for each.

use std::fmt;
use std::ops::{Index, IndexMut};
use std::str::FromStr;

/// One of the two copies of an app. Nothing else is a color.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Color {
    /// The first copy; where an undecided first start begins.
    Blue,
    /// The second copy.
    Green,
}

impl Color {
    /// Both, blue first: the order of every listing.
    pub const ALL: [Self; 2] = [Self::Blue, Self::Green];

    /// The color that this one is not.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Blue => Self::Green,
            Self::Green => Self::Blue,
        }
    }

    /// The name as config, API, CLI and metrics spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Blue => "blue",
            Self::Green => "green",
        }
    }
}

impl fmt::Display for Color {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A name that is neither `blue` nor `green`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown color `{0}`: a color is `blue` or `green`")]
pub struct UnknownColor(pub String);

impl FromStr for Color {
    type Err = UnknownColor;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "blue" => Ok(Self::Blue),
            "green" => Ok(Self::Green),
            other => Err(UnknownColor(other.to_owned())),
        }
    }
}

/// One value for each color, indexed by [`Color`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByColor<T> {
    /// Blue's value.
    pub blue: T,
    /// Green's value.
    pub green: T,
}

impl<T> ByColor<T> {
    /// Both values made by the same function, blue first.
    pub fn from_fn(mut make: impl FnMut(Color) -> T) -> Self {
        Self {
            blue: make(Color::Blue),
            green: make(Color::Green),
        }
    }

    /// Both values with their colors, blue first.
    pub fn iter(&self) -> impl Iterator<Item = (Color, &T)> {
        [(Color::Blue, &self.blue), (Color::Green, &self.green)].into_iter()
    }

    /// A pair of the results of `f` on each value.
    pub fn map<U>(&self, mut f: impl FnMut(Color, &T) -> U) -> ByColor<U> {
        ByColor {
            blue: f(Color::Blue, &self.blue),
            green: f(Color::Green, &self.green),
        }
    }
}

impl<T> Index<Color> for ByColor<T> {
    type Output = T;

    fn index(&self, color: Color) -> &T {
        match color {
            Color::Blue => &self.blue,
            Color::Green => &self.green,
        }
    }
}

impl<T> IndexMut<Color> for ByColor<T> {
    fn index_mut(&mut self, color: Color) -> &mut T {
        match color {
            Color::Blue => &mut self.blue,
            Color::Green => &mut self.green,
        }
    }
}
