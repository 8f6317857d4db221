package interop

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
)

const (
	// Nodes of each kind. The guarantees below depend on this count.
	mixedOfEach = 10
	// Nodes of each kind that are killed in a round.
	mixedKilled = mixedOfEach / 3
	mixedCids   = 100
	// Rounds of churn, unless DHTSTORE_MIXED_MINUTES asks for more.
	mixedRounds = 2
	// Announcements or look-ups that run at the same time.
	mixedWorkers = 4
	// Attempts for a look-up. One can fail, for instance because a node that it relies on has just been killed.
	mixedAttempts = 3
)

// Runs 10 nodes of go-libp2p-kad-dht, 10 of rust-libp2p and 10 of dhtstore in one LAN DHT.
//
// In each round a third of each kind is killed and started again: ours with their data directories, the others empty.
// Then the publishers announce their CIDs again. The restarted nodes of the other kinds do so at once, as Kubo does.
// All nodes do so at the end of the round, which stands for the interval.
//
// Why every CID must be found: an announcement is on the k = 20 closest of 29 nodes. A round kills nine nodes before
// the next announcement: three of ours, which return with their records, and six others. So at least 11 of the 20
// answer while the nine are down, and at least 14 after that. A look-up asks the 20 closest of the 20 to 29 nodes that
// are up.
func TestEveryCidIsFoundFromEveryKindOfNodeUnderChurn(t *testing.T) {
	begun, atLeast := time.Now(), mixedMinutes(t)
	n := newMixedNetwork(t, mixedCids)
	n.announce("all", func(mixedMember) bool { return true })
	n.everyCidIsFound("at first")
	for round := 1; round <= mixedRounds || time.Since(begun) < atLeast; round++ {
		victims := n.killSome()
		n.everyCidIsFound(fmt.Sprintf("round %d, %d nodes away", round, len(victims)))
		n.start(victims)
		n.announce("restarted", func(m mixedMember) bool { return slices.Contains(victims, m) && !keepsRecords(m) })
		n.everyCidIsFound(fmt.Sprintf("round %d, all back", round))
		n.announce("all", func(mixedMember) bool { return true })
	}
	n.report(begun)
}

// Kills all 30 nodes at once. No node announces again, so all records found then come from our disks.
//
// Why every CID must be found: a go or rust publisher announces to the 20 closest of 29 nodes. Only 19 of the 29 are
// not ours, so at least one of the 20 is ours, and usually seven are.
func TestWhatOthersAnnouncedOutlivesTheRestartOfTheWholeNetworkOnOurDisks(t *testing.T) {
	begun := time.Now()
	n := newMixedNetwork(t, 0)
	for i := range 2 * mixedOfEach {
		// The first third of the members are our nodes.
		n.own(i, n.members[mixedOfEach+i])
	}
	n.announce("all", func(mixedMember) bool { return true })
	settle()
	for _, m := range n.members {
		m.down()
	}
	n.kills, n.running = len(n.members), nil
	n.start(n.members)
	n.everyCidIsFound("after the restart of all")
	n.report(begun)
}

func mixedMinutes(t *testing.T) time.Duration {
	text := os.Getenv("DHTSTORE_MIXED_MINUTES")
	if text == "" {
		return 0
	}
	minutes, err := strconv.ParseFloat(text, 64)
	if err != nil {
		t.Fatalf("DHTSTORE_MIXED_MINUTES: %v", err)
	}
	return time.Duration(minutes * float64(time.Minute))
}

type mixedNetwork struct {
	t       *testing.T
	random  *rand.Rand
	members []mixedMember
	running []mixedMember
	owners  map[string]mixedMember
	// In the order of their creation.
	cids  []string
	kills int
	kinds []string
	// The look-ups of each kind of node.
	finds map[string]*mixedFinds
}

type mixedFinds struct {
	lock  sync.Mutex
	took  []time.Duration
	again int
}

// newMixedNetwork starts 30 nodes that know each other. They own the `cids` CIDs in turn.
func newMixedNetwork(t *testing.T, cids int) *mixedNetwork {
	t.Helper()
	seed := rand.Uint64()
	if text := os.Getenv("DHTSTORE_MIXED_SEED"); text != "" {
		given, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("DHTSTORE_MIXED_SEED: %v", err)
		}
		seed = given
	}
	t.Logf("DHTSTORE_MIXED_SEED=%d", seed)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	n := &mixedNetwork{
		t: t, random: rand.New(rand.NewPCG(seed, 0)), owners: make(map[string]mixedMember), finds: make(map[string]*mixedFinds),
	}
	for range mixedOfEach {
		n.members = append(n.members, newMixedOurs(t))
	}
	for range mixedOfEach {
		n.members = append(n.members, newMixedLibrary(t, "go-libp2p", self, n.random, mixedGoNode+"=1"))
	}
	for range mixedOfEach {
		n.members = append(n.members, newMixedLibrary(t, "rust-libp2p", kadNodeBin, n.random))
	}
	for i := range n.members {
		if i%mixedOfEach == 0 {
			n.kinds = append(n.kinds, n.members[i].kind())
			n.finds[n.members[i].kind()] = &mixedFinds{}
		}
	}
	begun := time.Now()
	n.start(n.members)
	t.Logf("%d nodes joined in %v", len(n.members), time.Since(begun).Round(time.Millisecond))
	for i := range cids {
		n.own(i, n.members[i%len(n.members)])
	}
	return n
}

func (n *mixedNetwork) own(number int, owner mixedMember) {
	builder := cid.V1Builder{Codec: cid.Raw, MhType: multihash.SHA2_256}
	made, err := builder.Sum(fmt.Appendf(nil, "%d of %s", number, owner.peer()))
	if err != nil {
		n.t.Fatal(err)
	}
	n.cids = append(n.cids, made.String())
	n.owners[made.String()] = owner
}

func keepsRecords(m mixedMember) bool {
	_, ours := m.(*mixedOurs)
	return ours
}

// start starts these nodes, connects each to three that run, and waits until every node knows k peers.
func (n *mixedNetwork) start(members []mixedMember) {
	n.t.Helper()
	for _, m := range members {
		var join []string
		for _, i := range n.random.Perm(len(n.running))[:min(3, len(n.running))] {
			join = append(join, n.running[i].address()+"/p2p/"+n.running[i].peer())
		}
		if err := m.up(join); err != nil {
			n.t.Fatalf("%s at %s does not start: %v", m.kind(), m.address(), err)
		}
		n.running = append(n.running, m)
	}
	const k = 20
	for deadline := time.Now().Add(patience); ; time.Sleep(500 * time.Millisecond) {
		var few []string
		for _, m := range n.running {
			if count, err := m.table(); err != nil || count < k {
				few = append(few, fmt.Sprintf("%s at %s knows %d peers (%v)", m.kind(), m.address(), count, err))
			}
		}
		if len(few) == 0 {
			return
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("after %v some nodes know fewer than %d peers:\n%s", patience, k, strings.Join(few, "\n"))
		}
	}
}

// killSome kills a random third of each kind.
func (n *mixedNetwork) killSome() (victims []mixedMember) {
	for kind := range n.kinds {
		for _, i := range n.random.Perm(mixedOfEach)[:mixedKilled] {
			victims = append(victims, n.members[kind*mixedOfEach+i])
		}
	}
	for _, victim := range victims {
		victim.down()
	}
	n.running = slices.DeleteFunc(n.running, func(m mixedMember) bool { return slices.Contains(victims, m) })
	n.kills += len(victims)
	return victims
}

// announce makes each publisher for which `meant` returns true announce its CIDs.
func (n *mixedNetwork) announce(which string, meant func(mixedMember) bool) {
	n.t.Helper()
	begun := time.Now()
	var jobs []func() error
	for _, key := range n.cids {
		if owner := n.owners[key]; meant(owner) {
			jobs = append(jobs, func() error {
				if err := owner.provide(key); err != nil {
					return fmt.Errorf("%s at %s cannot announce: %w", owner.kind(), owner.address(), err)
				}
				return nil
			})
		}
	}
	n.allOf(jobs)
	n.t.Logf("%d CIDs announced (publishers: %s) in %v", len(jobs), which, time.Since(begun).Round(time.Millisecond))
}

// everyCidIsFound looks each CID up from a random node of each kind.
func (n *mixedNetwork) everyCidIsFound(when string) {
	n.t.Helper()
	begun := time.Now()
	var jobs []func() error
	for _, key := range n.cids {
		for _, kind := range n.kinds {
			var finders []mixedMember
			for _, m := range n.running {
				if m.kind() == kind && m != n.owners[key] {
					finders = append(finders, m)
				}
			}
			finder := finders[n.random.IntN(len(finders))]
			jobs = append(jobs, func() error { return n.found(key, finder) })
		}
	}
	n.allOf(jobs)
	n.t.Logf("%s: %d look-ups found their provider, in %v", when, len(jobs), time.Since(begun).Round(time.Millisecond))
}

func (n *mixedNetwork) found(key string, finder mixedMember) (err error) {
	owner, finds := n.owners[key], n.finds[finder.kind()]
	for attempt := range mixedAttempts {
		if attempt > 0 {
			time.Sleep(time.Second)
		}
		begun := time.Now()
		var found map[string][]string
		if found, err = finder.find(key); err == nil {
			err = mixedVerify(found, owner, slices.Contains(n.running, owner))
		}
		finds.lock.Lock()
		finds.took = append(finds.took, time.Since(begun))
		if err != nil {
			finds.again++
		}
		finds.lock.Unlock()
		if err == nil {
			return nil
		}
	}
	return fmt.Errorf("%s, announced by %s, from %s at %s: %w", key, owner.kind(), finder.kind(), finder.address(), err)
}

// mixedVerify checks that the owner is the only provider found. If the owner is up, its dialable address must be there.
func mixedVerify(found map[string][]string, owner mixedMember, up bool) error {
	addresses, ok := found[owner.peer()]
	if !ok || len(found) != 1 {
		return fmt.Errorf("found %v, want %s", found, owner.peer())
	}
	dialable := func(address string) bool { return strings.TrimSuffix(address, "/p2p/"+owner.peer()) == owner.address() }
	if up && !slices.ContainsFunc(addresses, dialable) {
		return fmt.Errorf("addresses %v, want %s", addresses, owner.address())
	}
	return nil
}

// allOf runs the jobs, mixedWorkers at a time, and fails the test with the errors of those that failed.
func (n *mixedNetwork) allOf(jobs []func() error) {
	n.t.Helper()
	var group sync.WaitGroup
	queue, failed := make(chan func() error), make(chan error, len(jobs))
	for range mixedWorkers {
		group.Go(func() {
			for job := range queue {
				if err := job(); err != nil {
					failed <- err
				}
			}
		})
	}
	for _, job := range jobs {
		queue <- job
	}
	close(queue)
	group.Wait()
	close(failed)
	if len(failed) == 0 {
		return
	}
	var texts []string
	for err := range failed {
		texts = append(texts, err.Error())
	}
	n.t.Fatalf("%d of %d failed:\n%s", len(texts), len(jobs), strings.Join(texts[:min(10, len(texts))], "\n"))
}

func (n *mixedNetwork) report(begun time.Time) {
	n.t.Logf("%v, %d nodes killed", time.Since(begun).Round(time.Second), n.kills)
	for _, kind := range n.kinds {
		finds := n.finds[kind]
		slices.SortFunc(finds.took, cmp.Compare)
		at := func(percent int) time.Duration {
			return finds.took[(len(finds.took)-1)*percent/100].Round(time.Millisecond)
		}
		n.t.Logf("%s: %d look-ups, %d of them had to be repeated; median %v, p90 %v, max %v",
			kind, len(finds.took), finds.again, at(50), at(90), at(100))
	}
}
