package persist

import (
	"fmt"
	"strconv"
	"strings"
)

// Names of objects, and the folders that they are in. Numbers have ten digits, so that names are in their order.
const (
	headsFolder     = "heads/"
	segmentsFolder  = "segments/"
	sealedFolder    = "sealed/"
	claimsFolder    = "claims/"
	compactFolder   = "compact/"
	manifestsFolder = "manifest/"
	leasesFolder    = "leases/upkeep/"

	latestManifest = manifestsFolder + "latest"
)

// maxNumber is the largest that a name can have.
const maxNumber = 9_999_999_999

func headName(life uint64) string     { return fmt.Sprintf("%s%010d", headsFolder, life) }
func sealedName(life uint64) string   { return fmt.Sprintf("%s%010d", sealedFolder, life) }
func claimName(life, n uint64) string { return fmt.Sprintf("%s%010d/%010d", claimsFolder, life, n) }
func segmentName(life, seq uint64) string {
	return fmt.Sprintf("%s%010d/%010d", segmentsFolder, life, seq)
}
func manifestName(n uint64) string { return fmt.Sprintf("%s%010d", manifestsFolder, n) }
func leaseName(term uint64) string { return fmt.Sprintf("%s%010d", leasesFolder, term) }

// compactName is of the part-th segment that was compacted for a manifest; those of one part differ by who made them, since
// several may try for the same manifest.
func compactName(n, maker, part uint64) string {
	return fmt.Sprintf("%s%010d/%016x-%010d", compactFolder, n, maker, part)
}

// parseNumbers reads the numbers behind a folder, as many as there are places for; false: the name is another one.
func parseNumbers(name, folder string, into ...*uint64) bool {
	rest, ok := strings.CutPrefix(name, folder)
	if !ok {
		return false
	}
	parts := strings.Split(rest, "/")
	if len(parts) != len(into) {
		return false
	}
	for i, part := range parts {
		n, err := strconv.ParseUint(part, 10, 64)
		if err != nil || len(part) != 10 {
			return false
		}
		*into[i] = n
	}
	return true
}
