package engine

// bug stops the process on a state that cannot be. Cold paths only.
func bug(what string) { panic("BUG: " + what) }
