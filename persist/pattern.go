package persist

import "path"

// MatchTopic reports whether a topic's name matches a pattern: as path.Match says, but that a star alone matches every name, those
// with slashes too. It is the one meaning of patterns in the house: a topic that one place keeps and another does not know would be
// kept for good.
func MatchTopic(pattern, topic string) bool {
	if pattern == "*" {
		return true
	}
	ok, _ := path.Match(pattern, topic)
	return ok
}

// CheckPattern is an error if nothing can match a pattern, since it is none.
func CheckPattern(pattern string) error {
	_, err := path.Match(pattern, "")
	return err
}
