package persist

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
)

func TestVerifyFindsWhatIsBrokenAndNothingElse(t *testing.T) {
	for seed := range 12 {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(uint64(seed), 13))
			store := NewMemory()
			_, _, broken := randomWorld(t, rng, store)
			for _, name := range names(t, store, headsFolder) {
				var life uint64
				parseNumbers(name, headsFolder, &life)
				switch rng.IntN(4) {
				case 0:
					store.Put(t.Context(), sealedName(life), AppendSealed(nil, life, life, nil))
				case 1:
					store.Put(t.Context(), sealedName(life), []byte("not sealed"))
				}
				b, _ := store.Get(t.Context(), name, 0, -1)
				if h, err := ParseHead(b, life); err != nil {
					t.Fatal(err)
				} else if sealed, _ := store.Get(t.Context(), sealedName(life), 0, -1); h.Sealed && (len(sealed) == 0 || sealed[0] == 'n') {
					broken = append(broken, sealedName(life))
				}
			}
			if rng.IntN(2) == 0 {
				name := manifestName(1)
				store.Put(t.Context(), name, []byte("RFLXm\x01 but no more"))
				broken = append(broken, name)
			}
			var found []string
			done, err := testReader(store, ReaderConfig{}).Verify(t.Context(), func(done, of int64) {
				if done > of {
					t.Errorf("%d of %d bytes are done", done, of)
				}
			}, func(object string, err error) { found = append(found, object) })
			if err != nil {
				t.Fatal(err)
			}
			slices.Sort(broken)
			slices.Sort(found)
			if !slices.Equal(found, broken) {
				t.Errorf("found %v, broken are %v", found, broken)
			}
			if done.Segments == 0 {
				t.Error("no segment is good")
			}
		})
	}
}

func TestSurveyCountsWhatIsStoredTwiceOnce(t *testing.T) {
	store := NewMemory()
	first, second := startLife(t, store, 1), startLife(t, store, 2)
	first.add(modelRun("a", "E", 0, 1, 50), modelRun("b", "E", 0, 7, 1))
	second.add(modelRun("a", "E", 0, 31, 50), modelRun("a", "F", modelEpochMs, 1, 5))
	second.add(modelRun("a", "F", modelEpochMs, 9, 2))
	first.put()
	second.put()
	steps := 0
	got, err := testReader(store, ReaderConfig{}).Survey(t.Context(), func(done, of int) { steps++ })
	if err != nil || steps != 3 {
		t.Fatalf("%d segments: %v", steps, err)
	}
	bytes := func(runs ...Run) (n int64) {
		for _, r := range runs {
			n += int64(len(r.Frames))
		}
		return n
	}
	want := []TopicSummary{
		{Topic: "a", Epochs: 2, Messages: 87, Segments: 3, Bytes: bytes(modelRun("a", "E", 0, 1, 50), modelRun("a", "E", 0, 31, 50), modelRun("a", "F", 0, 1, 5), modelRun("a", "F", 0, 9, 2)),
			First: Position{"E", 1}, Last: Position{"F", 10}, FirstMs: 1, LastMs: modelEpochMs + 10},
		{Topic: "b", Epochs: 1, Messages: 1, Segments: 1, Bytes: bytes(modelRun("b", "E", 0, 7, 1)), First: Position{"E", 7}, Last: Position{"E", 7}, FirstMs: 7, LastMs: 7},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("it says %+v, want %+v", got, want)
	}
}
