package interop

import (
	"strings"
	"syscall"
	"testing"
)

// Kubo nodes on private addresses use /ipfs/lan/kad/1.0.0. At first they know only our server.
func TestKuboNodesFindEachOtherThroughUs(t *testing.T) {
	server := newDhtstore(t)
	server.start()
	publisher, reader := newKuboJoining(t, server.address()), newKuboJoining(t)
	publisher.start()
	publisher.hasInLanTable(server.id())

	content := "announced by Kubo\n"
	cid := publisher.add(content)
	publisher.run("routing", "provide", cid)
	addresses := func() string { return strings.Join(server.holds(cid, publisher.id()), "\n") }
	server.eventually("the record is held", func() bool { return addresses() != "" })
	if !strings.Contains(addresses(), "/ip4/"+publisher.ip+"/tcp/4001") {
		t.Fatalf("addresses of the record: %s", addresses())
	}
	if local := server.run("findprovs", "--local", cid); local != publisher.id() {
		t.Fatalf("findprovs --local: %s", local)
	}

	reader.start()
	reader.run("swarm", "connect", server.address())
	reader.hasInLanTable(server.id())
	if found := reader.finds(cid); found != publisher.id() {
		t.Fatalf("Kubo found %q, want %s", found, publisher.id())
	}
	if found := reader.run("routing", "findpeer", publisher.id()); !strings.Contains(found, "/ip4/"+publisher.ip+"/") {
		t.Fatalf("findpeer: %s", found)
	}
	if got := reader.fetches(cid, publisher.id()); got != strings.TrimSpace(content) {
		t.Fatalf("fetched %q", got)
	}
}

// The publisher is gone, so the record found after the restart comes from our disk.
func TestKuboFindsARecordWithItsAddressesAfterKill9(t *testing.T) {
	server := newDhtstore(t)
	server.start()
	publisher, reader := newKuboJoining(t, server.address()), newKuboJoining(t, server.address())
	publisher.start()
	publisher.hasInLanTable(server.id())
	cid, peer := publisher.add("kept over kill -9\n"), publisher.id()
	publisher.run("routing", "provide", cid)
	server.eventually("the record is held", func() bool { return server.holds(cid, peer) != nil })
	publisher.stop(syscall.SIGTERM)
	// A chunk of the log is written within a second, and sled flushes twice a second.
	settle()
	server.stop(syscall.SIGKILL)
	server.start()

	reader.start()
	reader.hasInLanTable(server.id())
	if found := reader.finds(cid); found != peer {
		t.Fatalf("Kubo found %q, want %s", found, peer)
	}
	// Kubo prints the addresses indented below the provider.
	if found := reader.run("routing", "findprovs", "-v", cid); !strings.Contains(found, "/ip4/"+publisher.ip+"/tcp/4001") {
		t.Fatalf("no addresses with the provider: %s", found)
	}
}

func TestWhatWeProvideIsFoundByKuboAndWhatKuboHoldsByUs(t *testing.T) {
	server := newDhtstore(t)
	server.start()
	kubo := newKuboJoining(t, server.address())
	kubo.start()
	kubo.hasInLanTable(server.id())
	server.eventually("Kubo is in our table", func() bool { return server.hasInTable(kubo.id()) })

	own := "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"
	server.run("provide", "--wait", own)
	if found := kubo.finds(own); found != server.id() {
		t.Fatalf("Kubo found %q, want %s", found, server.id())
	}

	// A second dhtstore node holds no record and has to ask.
	other := newDhtstore(t)
	other.start("--bootstrap", server.address())
	cid := kubo.add("found by dhtstore\n")
	kubo.run("routing", "provide", cid)
	other.eventually("the second node finds Kubo's record", func() bool {
		found, _ := other.try("findprovs", "--format", "ids", cid)
		return strings.Contains(found, kubo.id())
	})
	if found := other.run("findpeer", kubo.id()); !strings.Contains(found, "/ip4/"+kubo.ip+"/") {
		t.Fatalf("findpeer: %s", found)
	}
}
