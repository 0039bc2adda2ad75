//! "Did you mean": the known key that is nearest to an unknown one.

/// The nearest key, if it is near enough to be meant.
pub(super) fn most_similar<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let name = normal(name);
    let distance_max = (name.len() / 3).max(1);
    let near = known.iter().map(|key| (distance(&name, &normal(key)), *key));
    near.filter(|(distance, _)| *distance <= distance_max)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, key)| key)
}

/// Kafka writes keys with dots, others with dashes or in camel case.
fn normal(name: &str) -> String {
    let mut normal = String::new();
    for c in name.chars() {
        match c {
            '.' | '-' | ' ' => normal.push('_'),
            c if c.is_ascii_uppercase() => {
                if !normal.is_empty() {
                    normal.push('_');
                }
                normal.push(c.to_ascii_lowercase());
            }
            c => normal.push(c),
        }
    }
    normal
}

/// Insertions, deletions and substitutions between two texts, by the usual table kept one row at a time.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, a_char) in a.chars().enumerate() {
        let mut next = Vec::with_capacity(row.len());
        let mut left = i + 1;
        next.push(left);
        for ((b_char, above_left), above) in b.iter().zip(&row).zip(row.iter().skip(1)) {
            let substituted = above_left + usize::from(a_char != *b_char);
            left = substituted.min(above + 1).min(left + 1);
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_those_of_the_textbook() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("same", "same"), 0);
    }

    #[test]
    fn typing_errors_and_other_spellings_find_the_key() {
        let known = ["bootstrap_servers", "client_id", "security_protocol"];
        assert_eq!(
            most_similar("bootstrap.servers", &known),
            Some("bootstrap_servers")
        );
        assert_eq!(most_similar("boostrap_server", &known), Some("bootstrap_servers"));
        assert_eq!(most_similar("clientId", &known), Some("client_id"));
        assert_eq!(most_similar("compression", &known), None);
    }
}
