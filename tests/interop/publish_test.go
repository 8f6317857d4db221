package interop

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
)

// dhtstore serves no blocks. Its records name its own peer id, and a Kubo elsewhere cannot prove that id. HTTP needs no
// peer id, so `provide.addresses` names the gateway of the Kubo that has the blocks.
func TestKuboFetchesWhatWeProvideFromWhereProvideAddressesSays(t *testing.T) {
	keeper := newKubo(t)
	keeper.run("config", "profile", "apply", "autoconf-off")
	keeper.run("config", "--bool", "AutoTLS.Enabled", "false")
	keeper.run("bootstrap", "rm", "--all")
	// It does not use the DHT, so no node learns of it over libp2p.
	keeper.run("config", "Routing.Type", "none")
	keeper.run("config", "Addresses.Gateway", "/ip4/0.0.0.0/tcp/8080")
	keeper.start()
	content := "fetched over HTTP\n"
	cid, gateway := keeper.add(content), "/ip4/"+keeper.ip+"/tcp/8080/http"

	server := newDhtstore(t)
	server.start("--set", "provide.addresses="+gateway)
	reader := newKuboJoining(t, server.address())
	reader.start()
	reader.hasInLanTable(server.id())
	server.eventually("the reader is in our table", func() bool { return server.hasInTable(reader.id()) })
	server.run("provide", "--wait", cid)

	if found := reader.finds(cid); found != server.id() {
		t.Fatalf("Kubo found %q, want %s", found, server.id())
	}
	if found := reader.run("routing", "findprovs", "-v", cid); !strings.Contains(found, gateway) {
		t.Fatalf("the record does not have the address %s: %s", gateway, found)
	}
	if got := reader.run("cat", "--timeout=20s", cid); got != strings.TrimSpace(content) {
		t.Fatalf("fetched %q", got)
	}
	if peers := reader.run("swarm", "peers"); strings.Contains(peers, keeper.id()) {
		t.Fatalf("fetched over libp2p, not from the gateway: %s", peers)
	}
}

// row is a line of NDJSON that a dhtstore command prints, of any kind.
type row struct {
	Kind, Dht, Peer string
	Providers       []string
	Dialable, Ok    bool
}

func rowsOf(t *testing.T, text string) (rows []row) {
	t.Helper()
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "{") {
			continue
		}
		var r row
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		rows = append(rows, r)
	}
	return rows
}

// distance returns the XOR distance of a peer from `place` in the keyspace (KEY-1).
func distance(t *testing.T, id string, place [32]byte) []byte {
	t.Helper()
	decoded, err := peer.Decode(id)
	if err != nil {
		t.Fatal(err)
	}
	own := sha256.Sum256([]byte(decoded))
	for i := range own {
		own[i] ^= place[i]
	}
	return own[:]
}

// Runs the commands that an operator uses to find content of Kubo nodes, first with the provider up, then with it down.
func TestWeTellOfANetworkOfKubosWhereARecordIsAndWhetherItsProviderAnswers(t *testing.T) {
	boot := newDhtstore(t)
	boot.start()
	kubos := make([]*kuboNode, 4)
	var ids []string
	for i := range kubos {
		kubos[i] = newKuboJoining(t, boot.address())
		kubos[i].start()
		kubos[i].hasInLanTable(boot.id())
		ids = append(ids, kubos[i].id())
	}
	asked := newDhtstore(t)
	asked.start("--bootstrap", boot.address())
	for _, id := range ids {
		asked.eventually("all Kubos are in our table", func() bool { return asked.hasInTable(id) })
		kubos[0].eventually("the publisher has them in its own", func() bool {
			return id == ids[0] || strings.Contains(kubos[0].run("stats", "dht", "lan"), id)
		})
	}

	// All servers, including the Kubo nodes, ordered by distance (KEY-1).
	var closest []string
	for _, r := range rowsOf(t, asked.run("closest", "--format", "ndjson", ids[0])) {
		if r.Dht == "lan" {
			closest = append(closest, r.Peer)
		}
	}
	decoded, err := peer.Decode(ids[0])
	if err != nil {
		t.Fatal(err)
	}
	place := sha256.Sum256([]byte(decoded))
	byDistance := func(a, b string) int { return bytes.Compare(distance(t, a, place), distance(t, b, place)) }
	if !slices.IsSortedFunc(closest, byDistance) {
		t.Fatalf("not by distance: %v", closest)
	}
	for _, id := range append(ids, boot.id()) {
		if !slices.Contains(closest, id) {
			t.Fatalf("%s is missing among the closest: %v", id, closest)
		}
	}

	cid := kubos[0].add("of which we ask\n")
	kubos[0].run("routing", "provide", cid)
	holders := func(text string) (count int) {
		for _, r := range rowsOf(t, text) {
			if r.Kind == "server" && slices.Contains(r.Providers, ids[0]) {
				count++
			}
		}
		return count
	}
	var said string
	asked.eventually("each of the other Kubos and both of ours hold the record", func() bool {
		said, _ = asked.try("diagnose", "--format", "ndjson", cid)
		return holders(said) >= len(kubos)-1
	})
	dialable := func(text string) bool {
		return slices.ContainsFunc(rowsOf(t, text), func(r row) bool { return r.Kind == "provider" && r.Dialable })
	}
	if said = asked.run("diagnose", "--format", "ndjson", cid); !dialable(said) {
		t.Fatalf("the provider is up, but not reported as dialable: %s", said)
	}
	if found := asked.run("findpeer", ids[1]); !strings.Contains(found, "/ip4/"+kubos[1].ip+"/") {
		t.Fatalf("findpeer: %s", found)
	}

	kubos[0].stop(syscall.SIGKILL)
	said, ok := asked.try("diagnose", "--format", "ndjson", cid)
	if ok || holders(said) == 0 || dialable(said) {
		t.Fatalf("the provider is down, but diagnose succeeded (%v) or reported it as dialable: %s", ok, said)
	}
}

// A client is in no routing table. The server finds it because it is connected to it (SRV-5).
func TestKuboFindsAndConnectsToAClientThatOnlyWeKnow(t *testing.T) {
	server := newDhtstore(t)
	server.start()
	client, searcher := newKuboJoining(t, server.address()), newKuboJoining(t, server.address())
	client.run("config", "Routing.Type", "dhtclient")
	client.start()
	client.hasInLanTable(server.id())
	searcher.start()
	searcher.hasInLanTable(server.id())
	if server.hasInTable(client.id()) {
		t.Fatal("a client is in our table")
	}
	if found := searcher.run("routing", "findpeer", client.id()); !strings.Contains(found, "/ip4/"+client.ip+"/") {
		t.Fatalf("findpeer: %s", found)
	}
	// By peer id alone: Kubo asks the DHT for the address.
	searcher.run("swarm", "connect", "/p2p/"+client.id())
	if peers := searcher.run("swarm", "peers"); !strings.Contains(peers, client.id()) {
		t.Fatalf("not connected: %s", peers)
	}
	// The client is connected only to our server and to the searcher.
	if peers := strings.Count(client.run("swarm", "peers"), "\n") + 1; peers != 2 {
		t.Fatalf("the client has %d peers", peers)
	}
}
