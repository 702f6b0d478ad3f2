package protocol

import "time"

// ParseTimestamp reads an RFC 3339 §5.6 date and time as Unix milliseconds,
// rounded down: 2026-01-02T15:04:05Z, with any fraction and any offset. T and Z
// may be lower case; leap seconds are refused. What lies before 1970 or past
// MaxSince is moved there. The error is an *Error with CodeBadRequest.
//
// It is written out because time.Parse also takes what RFC 3339 does not (a
// comma, an hour of one digit), and allocates for offsets.
func ParseTimestamp(s []byte) (ms int64, err error) {
	ms, e := timestamp(s)
	if e != nil {
		return 0, e
	}
	return ms, nil
}

func timestamp(s []byte) (ms int64, e *Error) {
	ms, ok := unixMilli(s)
	if !ok {
		return 0, refuse(CodeBadRequest, "time is %q, not RFC 3339 such as 2026-01-02T15:04:05Z", shown(s))
	}
	return min(max(ms, 0), MaxSince), nil
}

// AppendTimestamp appends ms, 0 to MaxSince, in the one form this server
// writes: UTC, with milliseconds.
func AppendTimestamp(dst []byte, ms int64) []byte {
	return time.UnixMilli(ms).UTC().AppendFormat(dst, "2006-01-02T15:04:05.000Z07:00")
}

func unixMilli(s []byte) (ms int64, ok bool) {
	const layout = "0000-00-00T00:00:00"
	if len(s) < len(layout)+1 || !hasShape(s[:len(layout)], layout) {
		return 0, false
	}
	year, month, day := decimal(s[0:4]), decimal(s[5:7]), decimal(s[8:10])
	hour, minute, second := decimal(s[11:13]), decimal(s[14:16]), decimal(s[17:19])
	if month < 1 || month > 12 || day < 1 || hour > 23 || minute > 59 || second > 59 {
		return 0, false
	}
	t := time.Date(year, time.Month(month), day, hour, minute, second, 0, time.UTC)
	if t.Day() != day { // the month has no such day
		return 0, false
	}
	fraction, s := fractionMilli(s[len(layout):])
	offset, ok := zoneMinutes(s)
	return t.UnixMilli() + fraction - int64(offset)*60_000, ok && fraction >= 0
}

// hasShape compares s with a layout of the same length, in which 0 stands for
// any digit and T for either case.
func hasShape(s []byte, layout string) bool {
	for i, c := range s {
		switch want := layout[i]; {
		case want == '0' && c >= '0' && c <= '9':
		case want == 'T' && c == 't':
		case want != '0' && c == want:
		default:
			return false
		}
	}
	return true
}

func decimal(digits []byte) (v int) {
	for _, c := range digits {
		v = v*10 + int(c-'0')
	}
	return v
}

// fractionMilli takes the fraction of a second off the front of s; it is
// negative if there is a point without digits.
func fractionMilli(s []byte) (ms int64, rest []byte) {
	if len(s) == 0 || s[0] != '.' {
		return 0, s
	}
	n := skipDigits(s, 1)
	if n < 0 {
		return -1, s
	}
	for k := 1; k <= 3; k++ {
		ms *= 10
		if k < n {
			ms += int64(s[k] - '0')
		}
	}
	return ms, s[n:]
}

// zoneMinutes is how far the zone s, Z or +hh:mm or -hh:mm, is ahead of UTC.
func zoneMinutes(s []byte) (minutes int, ok bool) {
	if len(s) == 1 {
		return 0, s[0] == 'Z' || s[0] == 'z'
	}
	if len(s) != len("+00:00") || s[0] != '+' && s[0] != '-' || !hasShape(s[1:], "00:00") {
		return 0, false
	}
	hours, minutes := decimal(s[1:3]), decimal(s[4:6])
	if hours > 23 || minutes > 59 {
		return 0, false
	}
	minutes += hours * 60
	if s[0] == '-' {
		minutes = -minutes
	}
	return minutes, true
}
