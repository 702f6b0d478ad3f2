package client

import (
	"context"
	"fmt"

	"rayflux/protocol"
)

// PublishOption changes one publish.
type PublishOption func(*protocol.Command)

// AckStored asks for the answer only once the message is in the snapshot
// store, which takes about a snapshot interval. Without a store the publish
// fails at once with code not_persisted.
func AckStored() PublishOption {
	return func(cmd *protocol.Command) { cmd.Stored = true }
}

// Publish appends a message to a topic and waits for the position it got.
// Calls of many goroutines share the connection's writes; one goroutine's
// publishes to one topic keep their order. payload is the caller's again when
// Publish returns. It must be valid for its kind.
//
// Without a connection it waits for the next one, as long as ctx allows. The
// error is a *protocol.Error if the server, or a limit it announced, refused
// the message; ErrOutcomeUnknown (with errors.Is) if nobody can say any more
// whether it happened; ctx.Err() or ErrClosed if it did not.
func (c *Client) Publish(ctx context.Context, topic string, kind protocol.Kind, payload []byte, options ...PublishOption) (protocol.Position, error) {
	cmd, err := publishCommand(topic, kind, payload, options)
	if err != nil {
		return protocol.Position{}, err
	}
	ca := &call{op: protocol.CmdPublish, answered: make(chan answer, 1)}
	if err := c.post(ctx, &cmd, ca); err != nil {
		return protocol.Position{}, err
	}
	select {
	case a := <-ca.answered:
		return a.position, a.err
	case <-ctx.Done():
		// The answer still has its place among those in flight until it comes.
		return protocol.Position{}, fmt.Errorf("%w: %w", ErrOutcomeUnknown, ctx.Err())
	}
}

// PublishAsync is Publish without an answer: the message is queued when it
// returns, which it does as soon as the connection has room, and ctx bounds.
// It is the fastest way to publish and the least certain. If the server
// refuses the message, Options.OnError is told; if the connection breaks, what
// was under way is lost and OnError is told that once, as ErrOutcomeUnknown.
// AckStored has no meaning here.
func (c *Client) PublishAsync(ctx context.Context, topic string, kind protocol.Kind, payload []byte) error {
	cmd, err := publishCommand(topic, kind, payload, nil)
	if err != nil {
		return err
	}
	return c.post(ctx, &cmd, nil)
}

// publishCommand checks what would break the encoding. Everything else is the
// server's to judge, as it has to judge it anyway.
func publishCommand(topic string, kind protocol.Kind, payload []byte, options []PublishOption) (protocol.Command, error) {
	name := []byte(topic)
	if err := protocol.CheckTopic(name); err != nil {
		return protocol.Command{}, err
	}
	cmd := protocol.Command{Op: protocol.CmdPublish, Topic: name, Kind: kind, Payload: payload}
	for _, option := range options {
		option(&cmd)
	}
	return cmd, nil
}

func tooLarge(size, limit int) error {
	return &protocol.Error{
		Code:    protocol.CodeMessageTooLarge,
		Message: fmt.Sprintf("payload is %d bytes, limit %d", size, limit),
	}
}

// reportUnanswered speaks for the asynchronous publishes of a connection that
// broke: which of them arrived cannot be known, but the loss is never silent.
func (c *Client) reportUnanswered(cn *conn, reason error) {
	if cn.unanswered > 0 {
		c.report(fmt.Errorf("%w: the last of %d asynchronous publishes: %w", ErrOutcomeUnknown, cn.unanswered, reason))
	}
}
