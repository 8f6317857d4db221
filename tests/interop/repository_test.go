package interop

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A second of an open chunk and two flushes, with room to spare.
func settle() { time.Sleep(3 * time.Second) }

// What `init --private` prints goes into sh as it is, for a repository fresh from `ipfs init`.
func TestKuboJoinsAPrivateNetworkByThePrintedCommands(t *testing.T) {
	server := newDhtstore(t)
	script := server.run("init", "--private")
	server.start()
	var members []*kuboNode
	for range 2 {
		kubo := newKubo(t)
		file := filepath.Join(tempDir(t), "join.sh")
		if err := os.WriteFile(file, []byte(script), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, ok := kubo.tryProgram("sh", nil, file); !ok {
			t.Fatalf("the printed commands failed: %s\n%s", out, script)
		}
		kubo.start("LIBP2P_FORCE_PNET=1")
		kubo.hasInLanTable(server.id())
		if strings.Contains(kubo.logged(), "ERROR") {
			t.Fatalf("Kubo complains:\n%s", kubo.logged())
		}
		members = append(members, kubo)
	}
	if interval := members[0].run("config", "Provide.DHT.Interval"); interval != "10h" {
		t.Fatalf("Provide.DHT.Interval: %s", interval)
	}
	cid := members[0].add("for members only\n")
	members[0].run("routing", "provide", cid)
	if found := members[1].finds(cid); found != members[0].id() {
		t.Fatalf("found %q, wanted %s", found, members[0].id())
	}

	// Without the key nobody gets in.
	stranger := newKuboJoining(t)
	stranger.start()
	if out, ok := stranger.try("swarm", "connect", server.address()); ok {
		t.Fatalf("connected without the swarm key: %s", out)
	}
}

func TestAKuboRepositoryIsTakenOver(t *testing.T) {
	boot := newDhtstore(t)
	boot.start()
	kubo := newKuboJoining(t, boot.address())
	peer := kubo.id()
	repository := strings.TrimPrefix(kubo.env[2], "IPFS_PATH=")
	kubo.start()
	server := newDhtstore(t)
	if out, ok := server.try("init", "--from-kubo", repository); ok || !strings.Contains(out, "runs") {
		t.Fatalf("a running Kubo must be refused: %s", out)
	}
	kubo.stop(syscall.SIGTERM)
	server.run("init", "--from-kubo", repository)
	if server.id() != peer {
		t.Fatalf("peer id %s, Kubo's was %s", server.id(), peer)
	}
	server.start()
	server.eventually("it joined by Kubo's bootstrap peers", func() bool {
		return strings.Contains(server.run("dump", "routing", "--format", "ndjson"), boot.id())
	})
	// Other Kubo nodes go on as before: same peer id, same port.
	client := newKuboJoining(t, server.address())
	client.start()
	client.hasInLanTable(peer)
}
