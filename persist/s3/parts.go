package s3

import (
	"bytes"
	"context"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// abortPatience bounds the last request about an upload that failed. Parts that it does not remove cost money until the bucket's
// life-cycle rule does.
const abortPatience = 5 * time.Second

// writeParts writes a body in parts, one after the other: a failed part is sent again, not the whole.
func (s *Store) writeParts(ctx context.Context, key *string, body []byte, ifNoneMatch *string) error {
	upload, err := s.client.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: &s.bucket, Key: key})
	if err != nil {
		return err
	}
	parts, err := s.sendParts(ctx, key, upload.UploadId, body)
	if err == nil {
		_, err = s.client.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
			Bucket: &s.bucket, Key: key, UploadId: upload.UploadId, IfNoneMatch: ifNoneMatch,
			MultipartUpload: &types.CompletedMultipartUpload{Parts: parts},
		})
	}
	if err != nil {
		aborting, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortPatience)
		defer cancel()
		_, _ = s.client.AbortMultipartUpload(aborting, &s3.AbortMultipartUploadInput{Bucket: &s.bucket, Key: key, UploadId: upload.UploadId})
	}
	return err
}

func (s *Store) sendParts(ctx context.Context, key, upload *string, body []byte) (parts []types.CompletedPart, err error) {
	for number := int32(1); len(body) > 0; number++ {
		part := body[:min(len(body), s.partBytes)]
		body = body[len(part):]
		sent, err := s.client.UploadPart(ctx, &s3.UploadPartInput{
			Bucket: &s.bucket, Key: key, UploadId: upload, PartNumber: &number, Body: bytes.NewReader(part),
		})
		if err != nil {
			return nil, err
		}
		parts = append(parts, types.CompletedPart{ETag: sent.ETag, PartNumber: aws.Int32(number)})
	}
	return parts, nil
}
