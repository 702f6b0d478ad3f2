package main

// didYouMean is the end of an error about an unknown word: the candidate
// nearest to it as a question, or nothing if none is near. prefix goes before
// it; what all candidates share must not count as likeness.
func didYouMean(prefix, word string, candidates []string) string {
	// A third of the word may be wrong: two slips in "listen", five in
	// "max-subscriptions", never all of it. Past that a suggestion is noise.
	best, nearest := min(max(2, len(word)/3)+1, len(word)), ""
	for _, c := range candidates {
		if d := distance(word, c); d < best {
			best, nearest = d, c
		}
	}
	if nearest == "" {
		return ""
	}
	return ", did you mean " + prefix + nearest + "?"
}

// distance counts the letters to insert, delete, replace or swap with their
// neighbour to make b of a (the optimal string alignment distance).
func distance(a, b string) int {
	before, row, next := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		next[0] = i
		for j := 1; j <= len(b); j++ {
			replace := row[j-1]
			if a[i-1] != b[j-1] {
				replace++
			}
			next[j] = min(row[j]+1, next[j-1]+1, replace)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				next[j] = min(next[j], before[j-2]+1)
			}
		}
		before, row, next = row, next, before
	}
	return row[len(b)]
}
